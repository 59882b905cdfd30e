"""Where images come from: each data set a module that gives a `DataSet`, and what they share to get at their bytes.

cifar10, digits, folder    a data set each, on dataset (what they give) and arrays (what is written of it)
address, fetch, transfer   data.url -> a local file with the right checksum
archives, pickles          what is inside such a file, taken out without trusting it
images                   image files -> arrays
disk, progress             room on the disk, bars in the terminal
"""
