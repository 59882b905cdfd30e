"""Where images come from: data sets, how their files are fetched and unpacked, and the arrays that they become.

prepare.py           the data set that params.yaml names -> arrays in data/: what the stage download does
dataset.py           what every data set gives: labelled images by part
cifar.py             CIFAR-10 and CIFAR-100, from their archives
torchvision_sets.py  the published data sets that torchvision reads
digits.py            the digits that ship with scikit-learn
folder.py            a folder or an archive of images, one directory per class
listing.py           the images of a folder by part and class
layout.py            which directories of a folder are train/ and test/
class_names.py       names of directories as names of classes
signatures.py        the format of a file by its first bytes
decoding.py          a data set of image files, decoded once
decoded.py           decoded images on the disk, which outlive a kill
images.py            image files -> uint8 RGB of one size
outside.py           an image from outside, for a trained network
web_images.py        images at http(s) addresses, with limits
wide.py              images of more than 8 bits, one scale for a data set
arrays.py            a data set -> arrays and meta.json
verifying.py         whether the arrays are still those of meta.json
fingerprint.py       whether a folder or archive has changed since it was read
duplicates.py        equal images: counts, examples, warnings
near_duplicates.py   test images that look nearly like a training image: a count
address.py           data.url: a URL or a path, shown without its password
fetch.py             an address -> a local file with the right checksum
transfer.py          one file over HTTP, over as many connections as it takes
origin.py            which file a partial download belongs to
archives.py          zip and tar archives, unpacked without trusting them
pickles.py           CIFAR's pickles, read without executing them
disk.py              free space, and errors of the disk as sentences
progress.py          progress bars in the terminal
"""
