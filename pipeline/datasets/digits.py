"""The digits that ship with scikit-learn: 1,797 greyscale images of 8x8 pixels, 10 classes, no download.

They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, UCI repository).
"""

import numpy as np
from sklearn.datasets import load_digits

from pipeline.config import Data
from pipeline.datasets.dataset import DataSet, Part, test_split


def read(data: Data) -> DataSet:
    """The digits. Values 0..16 are scaled to 0..255. `data.test_share` of each class becomes the test part."""
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    labels = bunch.target.astype(np.int64)
    in_test = test_split(labels, data.test_share, data.test_seed)
    return DataSet(
        name="digits",
        classes=[str(name) for name in bunch.target_names],
        shape=(1, 8, 8),
        training=Part(labels[~in_test], [images[~in_test]]),
        test=Part(labels[in_test], [images[in_test]]),
        source="scikit-learn",
        archive_sha256=None,
    )
