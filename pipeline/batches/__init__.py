"""Images on disk -> a training and a validation part -> augmented batches on the device.

images.py         the arrays of a data set, memory-mapped
mapped.py         advice to the kernel on memory maps of large files
splits.py         which images train and which validate: a split, or folds
loaders.py        images on the device, or streamed to it where they don't fit
batches.py        shuffled and augmented batches for training; ordered ones for validation and the test
augment.py        augmentation of whole batches, with a draw per image
auto_augment.py   TrivialAugment and RandAugment
"""
