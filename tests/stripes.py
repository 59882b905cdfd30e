"""Images of two classes that a network learns within seconds."""

import numpy as np

from pipeline.batches.images import Images


def striped(side: int) -> Images:
    """64 images of noise, `side` x `side`, three channels; those of class 1 are brighter in the lower half."""
    random = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = random.integers(0, 160, (64, side, side, 3), dtype=np.uint8)
    images[labels == 1, side // 2 :] += 90
    return Images(images, labels)
