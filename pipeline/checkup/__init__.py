"""What is wrong in a project that was moved, copied or half deleted: the checks of `python -m pipeline.doctor`.

checks.py         the list of all checks; runs them, and mends what can be mended
data.py           params.yaml, the arrays, their source
results.py        the model, its record and metrics.json; the outputs that dvc.lock names
leftovers.py      files of processes that were killed
surroundings.py   git, DVC, Python, versions, GPU, disk

Those of MLflow's database are in tracking/health.py, those of Optuna's journal in search/studies/health.py. Without
--fix no check changes a file.
"""
