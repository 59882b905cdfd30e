"""Trains a network: `fit` yields an `Epoch` after each pass over the images.

loop.py               the training loop, and its parts: network, training batches, validation batches
cross_validation.py   a training as the rest of the house sees it: one network, or one per fold
optimizers.py         SGD, Adam, AdamW, Muon, and which weights get which rule
orthogonal.py         matrices made orthogonal, for Muon
schedules.py          the learning rate over the steps
ema.py                the moving average of the weights
checkpoint.py         the state of a training on disk
resume.py             which trainings may resume, and where their checkpoints are
device.py             device, precision, threads
failures.py           too little memory, and a device that can't be used any more
progress.py           the progress bar, and a line per epoch
"""
