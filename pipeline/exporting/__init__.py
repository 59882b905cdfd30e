"""Networks -> MLflow models: a graph in place of pickled code, with signature and input example.

process.py          writes the models of a search from weights, in a process of its own
trained.py          what one trained network's model is made of, kept as files, and made later
mlflow_model.py     one network, or one exported graph, as an MLflow model on disk
served.py           what an MLflow model answers
served_code.py      the code that travels with it
loaded.py           a network that was read from a file, whatever its format
program.py          a network as a graph of torch.export (.pt2)
onnx.py             a network as ONNX, in fp32 or int8
environment.py      makes MLflow quiet, and quick to give up
"""
