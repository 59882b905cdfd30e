"""Hyperparameter optimization and experiment tracking for image classifiers.

Stages of `dvc repro`. File, command, stage and section of params.yaml have one name. The package config is the first
stage: it writes the values in effect.

    download.py     fetches, verifies, writes the images as arrays
    train.py        trains the values of params.yaml, writes the model
    evaluate.py     scores the model on the test set, which nothing else reads
    report.py       draws the figures, writes one HTML page

Commands:

    tune.py         searches the space that params.yaml declares
    study.py        trains all combinations of a grid, such as one over depths
    ensemble.py     combines the best networks of a search, without training
    reproduce.py    trains a recorded result again and compares every epoch
    lineage.py      from a figure back to all it hangs on, and forward
    doctor.py       finds what a moved, copied or half-deleted project broke, and mends it
    predict.py      names what is in images, by a trained network
    export.py       writes a trained network for other programs, and checks that it predicts the same there

Packages, from the roof down. A package imports only from those below its own; its docstring is its map:

    checkup/        the checks of the doctor
    search/         who decides (studies, schedulers, space), who trains (engines)
    deployment/     trained networks in use: predictions of images from outside, exported files
    reporting/      result files -> figures, one HTML page
    audit/          what a result hangs on, and whether it can be made again
    tracking/       runs in MLflow: recorded on disk first, sent in the background
    evaluation/     inference, metrics with intervals, ensembles, soups
    exporting/      networks -> MLflow models, in a process of its own
    training/       the training loop, optimizers, schedules, checkpoints, cross-validation, device
    networks/       networks, one file a family, and their weights on disk
    batches/        splits, augmentation, batches on the device or streamed to it
    datasets/       where images come from: CIFAR-10, digits, a folder; addresses, archives
    config/         params.yaml as one frozen, strict, typed Config

Small modules that everyone may know:

    provenance.py   what a result was made from: commit, data, code, versions
    machine.py      what a machine offers, and where the workers of a search run on it
    grouping.py     splits that keep equal images together
    records.py      the typed records that stages hand each other, and their JSON files
    outcome.py      how a training ended, and what follows from that
    findings.py     what the checks of the doctor yield
    processes.py    child processes, each with a pipe to its parent
    fonts.py        fonts for class names in any script
    cli.py          what command lines share: --help, errors, exit codes
    files.py        the names of all files, and how a file is written whole
    errors.py       the tree of errors that a user can act on
"""
