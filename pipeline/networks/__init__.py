"""Networks and their weights on disk. A family is a module here and a line in pipeline/config/families.py.

classifier.py    a network with the normalisation of its images
registry.py      builds the network of the section model, and checks that it can take the images
weights.py       weights on disk
restored.py      a network from its file alone
cost.py          number of weights and operations
network.py       what a family gives: attributes, hooks, the function `build`
zoo.py           torchvision's networks, wholly or partly frozen
stem.py          how they keep the size of small images
imagenet.py      weights to start from: torchvision's, or those of a file
own.py           a network of the user's
resnet.py        ResNet and its plain network for small images (He et al. 2015, section 4.2)
vgg.py           VGG-11 to -19 (Simonyan & Zisserman 2014)
speed.py         few wide stages after a whitening layer (Jordan 2024)
fourier.py       3x3 convolutions by their Fourier transform, for speed on a CPU
projection.py    the shortcut of a residual block whose shape changes
initial.py       initial weights
"""

from pipeline.networks.classifier import Classifier
from pipeline.networks.cost import macs, parameters
from pipeline.networks.network import SIZE_KEYS
from pipeline.networks.registry import build
from pipeline.networks.restored import restore
from pipeline.networks.weights import load, save, write

__all__ = ["SIZE_KEYS", "Classifier", "build", "load", "macs", "parameters", "restore", "save", "write"]
