"""Networks -> MLflow models: a graph in place of pickled code, with signature and input example.

process.py          writes models from weights, in a process of its own
mlflow_model.py     one network, or one exported graph, as an MLflow model on disk
environment.py      makes MLflow quiet, and quick to give up
"""
