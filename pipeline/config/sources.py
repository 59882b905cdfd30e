"""The data sets of data.name. A new one of torchvision.datasets is an entry of SOURCES."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """A value of data.name."""

    base: str = ""
    """Official address of the folder that holds its files."""
    files: Mapping[str, str] = field(default_factory=dict)
    """MD5 of each file by its name, as torchvision has them; empty where nothing official is fetched."""
    torchvision: str | None = None
    """The class of torchvision.datasets that reads the files."""
    root: str = ""
    """Where below its root that class looks for them, unpacked."""
    parts: tuple[str, ...] = ("train", "test")
    """Its names of the training, the validation (if there is one) and the test part; empty: one part, to be split."""
    resized: bool = False
    """Whether the images are files, which are resized to data.image_size. Others have one size and keep it."""
    side: int | None = None
    """For image files that all have the same size: their side in pixels, which data.image_size may leave out."""

    @property
    def address(self) -> str:
        """Official address of the file, or of the folder of several."""
        return self.base + next(iter(self.files)) if len(self.files) == 1 else self.base


_OF_MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_TORONTO, _OXFORD = "https://www.cs.toronto.edu/~kriz/", "https://www.robots.ox.ac.uk/~vgg/data/"


def _like_mnist(name: str, base: str, *md5: str) -> Source:
    files = {f"{file}.gz": value for file, value in zip(_OF_MNIST, md5, strict=True)}
    return Source(base, files, name, f"{name}/raw")


SOURCES: Mapping[str, Source] = {
    "cifar10": Source(_TORONTO, {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}),
    "cifar100": Source(_TORONTO, {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"}),
    "mnist": _like_mnist(
        "MNIST",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion_mnist": _like_mnist(
        "FashionMNIST",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "kmnist": _like_mnist(
        "KMNIST",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
    "svhn": Source(
        "http://ufldl.stanford.edu/housenumbers/",
        {
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
        "SVHN",
    ),
    "stl10": Source(
        "http://ai.stanford.edu/~acoates/stl10/",
        {"stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb"},
        "STL10",
    ),
    "flowers102": Source(
        f"{_OXFORD}flowers/102/",
        {
            "102flowers.tgz": "52808999861908f626f3c1f4e79d11fa",
            "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
            "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
        },
        "Flowers102",
        "flowers-102",
        ("train", "val", "test"),
        resized=True,
    ),
    "oxford_pets": Source(
        f"{_OXFORD}pets/data/",
        {
            "images.tar.gz": "5c4f3ee8e5d25df40f4fd59a7f44e54c",
            "annotations.tar.gz": "95a8c909bbe2e81eed6a22bccdf3f68f",
        },
        "OxfordIIITPet",
        "oxford-iiit-pet",
        ("trainval", "test"),
        resized=True,
    ),
    "eurosat": Source(
        "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/",
        {"EuroSAT.zip": "c8fa014336c82ac7804f0398fcb19387"},
        "EuroSAT",
        "eurosat",
        (),
        resized=True,
        side=64,
    ),
    "food101": Source(
        "http://data.vision.ee.ethz.ch/cvl/",
        {"food-101.tar.gz": "85eeb15f3717b99a5da872d97d918f87"},
        "Food101",
        resized=True,
    ),
    "dtd": Source(
        f"{_OXFORD}dtd/download/",
        {"dtd-r1.0.1.tar.gz": "fff73e5086ae6bdbea199a49dfb8a4c1"},
        "DTD",
        "dtd",
        ("train", "val", "test"),
        resized=True,
    ),
    "digits": Source(),
    "folder": Source(resized=True),
}
"""By the value of data.name, in the order in which messages and the JSON schema list them."""
