"""What an MLflow model answers: classes with their probabilities for images as files or as arrays.

A copy of this module, and of those of this project that it imports, is in each model (served_code.py). Where a model is
served there are torch, NumPy, Pillow and MLflow, and not this project. Nothing that a request holds is a path or an
address: images come in its body.

    {"inputs": ["<base64 of a JPEG, PNG, ...>", ...]}         of any size
    {"inputs": [[[[0, 255, ...], ...], ...], ...]}            [N, C, H, W] of the size of the training images, 0..255
"""

import base64
import binascii
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc.model import PythonModel

from pipeline.datasets import outside
from pipeline.datasets.images import strict_warnings
from pipeline.exporting import program

MOST_IMAGES = 256
MOST_BYTES = 20 << 20
"""Of one image file. Pillow's limit holds for its pixels."""
_BATCH_SIZE = 64


class Refused(MlflowException):
    """A request that can't be answered: status 400 with one sentence."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, error_code=BAD_REQUEST)

    @property
    def message(self) -> str:
        return self._sentence

    @message.setter
    def message(self, value: str) -> None:
        # MLflow's server would put all of the request in front of it.
        self._sentence = getattr(self, "_sentence", value)


class Served(PythonModel):
    """The graph in the model's folder, with its decoder in front and class names behind it."""

    _skip_type_hint_validation = True
    """For MLflow, which would else warn that `predict` has no type hints: by them it would check requests itself, and
    answer in its own words."""

    def load_context(self, context: Any) -> None:
        loaded = program.load(context.artifacts["graph"])
        self._logits = loaded.logits
        self._classes: list[str] = loaded.description["classes"]
        self._shape: list[int] = loaded.description["shape"]
        self._highest_float: int | None = loaded.description["highest_float"]

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """A dict with label, probability and probabilities (by class) for each image. Raises Refused."""
        images = self._images(model_input)
        found = []
        for start in range(0, len(images), _BATCH_SIZE):
            logits = self._logits(images[start : start + _BATCH_SIZE]).astype(np.float64)
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            found += [self._answer(row) for row in powers / powers.sum(axis=1, keepdims=True)]
        return found

    def _answer(self, probabilities: npt.NDArray[np.float64]) -> dict[str, Any]:
        best = int(probabilities.argmax())
        return {
            "label": self._classes[best],
            "probability": float(probabilities[best]),
            "probabilities": dict(zip(self._classes, probabilities.tolist(), strict=True)),
        }

    def _images(self, given: Any) -> npt.NDArray[np.uint8]:
        if not isinstance(given, (list, np.ndarray)) or not len(given):
            raise Refused('"inputs" must be a list of images: base64 texts, or numbers [N, C, H, W].')
        if len(given) > MOST_IMAGES:
            raise Refused(f"{len(given)} images are too many for one request: {MOST_IMAGES} are allowed.")
        if any(isinstance(one, str) for one in given):
            with strict_warnings():
                return np.stack([self._decoded(place, one) for place, one in enumerate(given)])
        return self._array(given)

    def _decoded(self, place: int, text: Any) -> npt.NDArray[np.uint8]:
        """The image of a base64 text."""
        if not isinstance(text, str):
            raise Refused(f"image {place} is no base64 text, as others of the request are.")
        if len(text) > MOST_BYTES * 4 // 3 + 4:
            raise Refused(f"image {place} has more than {MOST_BYTES >> 20} MiB.")
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Refused(f"image {place} is not base64 (paths, addresses and data: URLs are not read).") from None
        pixels = outside.pixels(BytesIO(content), self._shape, self._highest_float)
        if isinstance(pixels, str):
            raise Refused(f"image {place} can't be read: {pixels}.")
        return pixels

    def _array(self, given: Any) -> npt.NDArray[np.uint8]:
        """The images of nested lists of numbers, or of an array."""
        expected, got = ", ".join(map(str, self._shape)), _lengths(given)
        if got[1:] != self._shape:
            raise Refused(f"images as numbers must be [N, {expected}], got {got}; files (base64) may have any size.")
        # Only what was looked at becomes an array: of a long text among short ones NumPy would make many long ones.
        if isinstance(given, np.ndarray) or _is_regular(given, got):
            array = np.asarray(given)
            if array.dtype.kind in "iu" and 0 <= array.min() <= array.max() <= 255:
                return array.astype(np.uint8)
        raise Refused(f"images as numbers must be whole numbers from 0 to 255, [N, {expected}].")


def _lengths(given: Any) -> list[int]:
    """The shape of an array, or that of nested lists by the first of each."""
    found = []
    while isinstance(given, list) and given:
        found.append(len(given))
        given = given[0]
    return [*found, *getattr(given, "shape", ())]


def _is_regular(given: Any, shape: Sequence[int]) -> bool:
    """Whether nested lists have that shape and hold whole numbers alone."""
    if not isinstance(given, list) or len(given) != shape[0]:
        return False
    if len(shape) == 1:
        return set(map(type, given)) == {int}
    return all(_is_regular(each, shape[1:]) for each in given)
