"""Which part of an image a prediction rests on: the occlusion map of Zeiler & Fergus (2014, section 4.2), as a picture.

A grey patch is moved over the image. Where it lowers the probability of the predicted class, the prediction rests on
what it hides. That takes a hundred predictions an image, but no look inside of the network: it works for every family,
for graphs of MLflow and for ONNX.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.deployment.inputs import EXPLAINED, Input
from pipeline.deployment.opened import Opened
from pipeline.deployment.predicting import Prediction
from pipeline.files import atomic_write

PLACES = 10
"""How many places the patch takes along a side, at most."""
_PATCH = 1 / 4  # of the side
_PICTURE_SIDE = 384


def occlusion(model: Opened, pixels: npt.NDArray[np.uint8], label: int) -> npt.NDArray[np.float64]:
    """How much of the probability of `label` each pixel of the image [C, H, W] carries, [H, W]: 0 to 1, negative where
    hiding it raises the probability.
    """
    side = pixels.shape[-1]
    patch = max(2, round(side * _PATCH))
    # It begins outside of the image, so that pixels at its border are hidden as often as others.
    starts = np.unique(np.linspace(1 - patch, side - 1, min(PLACES, side + patch - 1)).round().astype(int))
    grey = np.broadcast_to(pixels.mean(axis=(1, 2), keepdims=True).round(), pixels.shape).astype(np.uint8)
    hidden = np.zeros((len(starts) ** 2, side, side), dtype=np.bool_)
    for place, (top, left) in enumerate((top, left) for top in starts for left in starts):
        hidden[place, max(top, 0) : top + patch, max(left, 0) : left + patch] = True
    images = np.where(hidden[:, None], grey, pixels)
    loss = model.probabilities(pixels[None])[0, label] - model.probabilities(images)[:, label]
    carried: npt.NDArray[np.float64] = (loss[:, None, None] * hidden).sum(axis=0) / hidden.sum(axis=0)
    return carried


def picture(pixels: npt.NDArray[np.uint8], carried: npt.NDArray[np.float64]) -> Image.Image:
    """The image [C, H, W] as the network saw it, and beside it in grey, under a red veil where `carried` is high."""
    colours = np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels
    seen = Image.fromarray(np.ascontiguousarray(colours.transpose(1, 2, 0)))
    factor = max(1, _PICTURE_SIDE // seen.width)
    size = seen.width * factor, seen.height * factor
    strength = np.clip(carried, 0, None)
    strength = strength / max(strength.max(), 1e-12)
    veil = Image.fromarray(np.rint(200 * strength).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grey = seen.convert("L").convert("RGB").resize(size, Image.Resampling.NEAREST)
    both = Image.new("RGB", (2 * size[0], size[1]))
    both.paste(seen.resize(size, Image.Resampling.NEAREST))
    both.paste(Image.composite(Image.new("RGB", size, (255, 40, 0)), grey, veil), (size[0], 0))
    return both


def explain(model: Opened, prediction: Prediction, image: Input, folder: Path | None) -> Path:
    """Writes NAME.explained.png beside the image and returns its path; that of an image of the web goes here.

    Into `folder` it is written under the whole path of the image: two folders may have images of one name.
    """
    path = Path(image.name.partition("?")[0].rpartition("/")[2]) if image.is_url else Path(image.name)
    inside = "_".join(part for part in path.parts if part not in ("/", "..", path.anchor))
    target = path.with_name(f"{path.name}{EXPLAINED}") if folder is None else folder / f"{inside}{EXPLAINED}"
    carried = occlusion(model, prediction.pixels, prediction.top(1)[0])
    with atomic_write(target) as aside:
        picture(prediction.pixels, carried).save(aside, format="PNG")
    return target
