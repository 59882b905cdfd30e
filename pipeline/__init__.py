"""Hyperparameter optimization and experiment tracking for image classifiers.

Stages of `dvc repro`, each a command line and a section of params.yaml:

    download.py     fetches, verifies, writes the pictures as arrays
    train.py        trains the values of params.yaml, writes the model
    evaluate.py     scores it on the test set, which nothing else reads
    report.py       draws the figures, writes one HTML page

What they stand on:

    sources/        where pictures come from: CIFAR-10, digits, a folder; addresses, archives
    training.py     the training loop: yields an Epoch after each pass, leaves checkpoints
    data.py         arrays on disk -> training and validation part -> batches on the device
    augment.py      augmentation of whole batches, a different draw for each picture
    models/         networks, one file a family
    device.py       every decision that depends on the device
    tracking/       runs in MLflow: recorded on disk first, sent in the background
    provenance.py   what a result was made from: commit, data, versions
    results.py      result files as the report reads them
    plots.py        learning curves and the confusion matrix as pictures
    display.py      progress of a training on the terminal

What all know:

    config.py       params.yaml as one frozen, strict, typed Config
    command.py      what command lines share: --help, errors, exit codes
    files.py        the names of all files, and how a file is written whole
    errors.py       the tree of errors that a user can act on
"""
