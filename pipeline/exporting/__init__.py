"""Networks -> MLflow models: a graph in place of pickled code, with signature and input example.

process.py          writes the models of a search from weights, in a process of its own
trained.py          what one trained network's model is made of, kept as files, and made later
mlflow_model.py     one network, or one exported graph, as an MLflow model on disk
environment.py      makes MLflow quiet, and quick to give up
"""
