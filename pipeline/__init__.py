"""Hyperparameter optimization and experiment tracking for image classifiers.

Stages of `dvc repro`, each a command line and a section of params.yaml:

    download.py     fetches, verifies, writes the pictures as arrays
    train.py        trains the values of params.yaml, writes the model
    evaluate.py     scores it on the test set, which nothing else reads
    report.py       draws the figures, writes one HTML page

The search:

    tune.py         its command line
    study.py        the command line of grids, such as one over depths, with their table and their figure
    ensemble.py     the best networks of a search put together, without training
    mixtures.py     what networks become together: ensembles and soups
    search/         who decides (study.py, schedule.py), who trains (local.py, worker.py), what is kept (ledger.py)

What they stand on:

    sources/        where pictures come from: CIFAR-10, digits, a folder; addresses, archives
    folds.py        cross-validation: several trainings as one
    training.py     the training loop: yields an Epoch after each pass, leaves checkpoints
    checkpoint.py   what a training leaves on disk after each epoch
    optimizers.py   how weights move: SGD, Adam, Muon, and which weights each rule is for
    schedules.py    how the learning rate moves
    average.py      the moving average of the weights
    focus.py        epochs of the hardest pictures alone
    data.py         arrays on disk -> training and validation part -> batches on the device
    augment.py      augmentation of whole batches, a different draw for each picture
    auto_augment.py   TrivialAugment and RandAugment, likewise
    models/         networks, one file a family
    soup.py         networks averaged to one
    device.py       how training runs on a device: precision, threads, memory format
    tracking/       runs in MLflow: recorded on disk first, sent in the background
    exporter.py     writes MLflow models from weights, in a process of its own
    provenance.py   what a result was made from: commit, data, versions
    results.py      result files as the report reads them
    plots.py        learning curves and the confusion matrix as pictures
    study_plots.py  a study as pictures: history, importances, parallel coordinates
    degradation_plot.py   errors against depth as a picture
    confusion.py    a confusion matrix as a picture within milliseconds
    display.py      progress of a training on the terminal

What all know:

    epoch.py        what a training says after each pass over the pictures
    meta.py         what is known of a data set without its pictures
    machine.py      what a machine offers, and where the workers of a search go on it
    config/         params.yaml as one frozen, strict, typed Config
    command.py      what command lines share: --help, errors, exit codes
    files.py        the names of all files, and how a file is written whole
    errors.py       the tree of errors that a user can act on
"""
