"""Initial weights."""

from torch import nn


def he_normal(network: nn.Module) -> None:
    """Draws weights of convolutions and linear layers (He et al. 2015, "Delving deep into rectifiers", section 2.2).

    Biases start at 0. Batch norms start with factors of 1 and shifts of 0, also at the end of a residual branch. Goyal
    et al. 2017 (section 5.1) start those with 0; the ResNet paper and torchvision don't.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out" if isinstance(module, nn.Conv2d) else "fan_in")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
