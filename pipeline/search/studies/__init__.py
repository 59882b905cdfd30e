"""A study from its first start to its end: one owner decides, everything it knows is on disk.

The owner:

    session.py        one start of a study: its phases search, confirmation and conclusion
    spec.py           what a study is made of: project, settings, data, space
    identity.py       what makes it this study and no other
    budget.py         how much a search may train, and whether a study is complete
    deadline.py       the limit --hours
    signals.py        Ctrl-C and SIGTERM
    owner.py          the loop that decides, gives orders to workers and reports to watchers
    checkpoints.py    the checkpoints of trials, in their folders or in a store: how large they are, deleting them
    proposals.py      where new trials come from: proposed one by one, or planned
    samplers.py       values for the next trial, by Optuna's samplers
    resources.py      what both phases use: engine, MLflow, the process that makes models

The ledger:

    trials.py         a trial as its owner knows it, and its folders
    ledger.py         the trials of a study in Optuna's storage, and the lock of their owner
    storage.py        where the studies are: a journal or a database
    database.py       studies in PostgreSQL
    journal.py        Optuna's journal on disk, safe from writers that are killed

Records:

    recorder.py       the watcher that records every trial in MLflow
    models.py         models for MLflow that are being made
    epochs.py         the epochs of a trial on disk
    display.py        the watcher that shows a study on the terminal

Results:

    ending.py         what a session asks of the end of a study
    winner.py         the end of a search: the winner
    ranking.py        the candidates, the best one first
    results.py        results/tune: trials.csv, study.json, best.yaml, and figures
    note.py           the description of a study's run in MLflow
    history.py        results/tune/history.json, for the report; the watcher that writes down what happens when
    grid.py           a grid: all combinations that a section of params.yaml declares
    grid_results.py   the end of a grid: results/study, its figure, the test error
    finished.py       the networks of a study, for commands that don't own it
    ensembling.py     the networks of a search combined: ensemble and soup

Commands:

    options.py        options that the command lines share
    commands.py       commands that messages advise
    catalog.py        the list of studies; deleting one
    health.py         checks for the doctor: journal, checkpoints, runs in MLflow
"""
