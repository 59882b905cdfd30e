"""The weights that networks begin with."""

from torch import nn


def he_normal(network: nn.Module) -> None:
    """Draws weights of convolutions and linear layers (He et al. 2015, "Delving deep into rectifiers", section 2.2).

    Biases begin at 0; batch norms as PyTorch has them, with factors of 1 and shifts of 0, also those that end a
    residual branch: to begin these with 0 (Goyal et al. 2017, section 5.1) is not the ResNet paper's way, nor
    torchvision's.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out" if isinstance(module, nn.Conv2d) else "fan_in")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
