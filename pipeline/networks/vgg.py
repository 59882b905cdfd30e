"""VGG for small images (Simonyan & Zisserman 2014, "Very deep convolutional networks", table 1), with batch norms."""

from torch import Tensor, nn

from pipeline.config import Model
from pipeline.networks.initial import he_normal
from pipeline.networks.network import Network, ends
from pipeline.records import Meta

CONVOLUTIONS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
"""3x3 convolutions before each of the five halvings: columns A, B, D and E of the table."""
_WIDTHS = (1, 2, 4, 8, 8)


def build(model: Model, meta: Meta) -> "VGG":
    """The families vgg11 to vgg19."""
    return VGG(model.family, model.width, dropout=model.dropout, **ends(meta))


class VGG(Network):
    """Five stages of 3x3 convolutions, each with a batch norm; a max pool ends each stage.

    `width` is the number of channels of the first stage, 64 in the paper; the others have 2, 4, 8 and 8 times that.
    A mean over all pixels and one linear layer follow. The paper has three fully connected layers there, with 120
    million weights, for the 7 x 7 pixels that five halvings leave of 224; of 32 they leave a single pixel. The weights
    of `features` have the same names as in torchvision's vgg11_bn to vgg19_bn.
    """

    least_side = 32

    def __init__(self, name: str, width: int, *, channels: int, classes: int, dropout: float = 0.0) -> None:
        """`name` is one of CONVOLUTIONS."""
        super().__init__()
        layers: list[nn.Module] = []
        for times, convolutions in zip(_WIDTHS, CONVOLUTIONS[name], strict=True):
            for _ in range(convolutions):
                # The batch norm makes its bias superfluous; torchvision's weights have one.
                convolution = nn.Conv2d(channels, times * width, kernel_size=3, padding=1)
                layers += [convolution, nn.BatchNorm2d(times * width), nn.ReLU(inplace=True)]
                channels = times * width
            layers.append(nn.MaxPool2d(kernel_size=2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(channels, classes)
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [N, C, H, W], of at least 32 pixels to a side -> logits [N, classes]."""
        features = self.pool(self.features(images)).flatten(1)
        logits: Tensor = self.classify(self.dropout(features))
        return logits
