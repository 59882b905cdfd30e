"""How good a network is: what it predicts, the figures of that, and what several networks predict together.

inference.py     a network from its file, and its predictions; with test-time augmentation
metrics.py       figures of predictions: accuracy with its interval, F1, NLL, calibration error
test_set.py      the test set, which nothing else reads
examination.py   labels that are probably wrong, and how the images look
comparing.py     two forms of one network on a whole part of the data
scoring.py       what the stage evaluate writes
ensembles.py     greedy ensembles and soups of the networks of a search
soup.py          networks averaged to one
"""
