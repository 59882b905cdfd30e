"""The report: result files as one HTML page, with its figures as PNG files beside it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from pipeline.cli import duration
from pipeline.files import Project, atomic_write
from pipeline.reporting import formats, plots
from pipeline.reporting.results import Mistake, Results

THUMBNAIL = 160
"""Pixels of the longer side of a mistake's image: 200 of them still make a small page."""


@dataclass(frozen=True)
class EmbeddedImage:
    """An image inside the page: its data URI, width and height in CSS pixels."""

    source: str
    width: float
    height: float


def write(project: Project, found: Results) -> list[Path]:
    """Writes the page, learning_curves.png and confusion_matrix.png, and returns their paths in this order."""
    panels = [plots.learning_curves(found.history, [panel]) for panel in plots.PANELS]
    confusion = plots.confusion_matrix(found.confusion, found.classes)
    curves = plots.learning_curves(found.history)
    content = {
        project.page: page(found, [_image(panel) for panel in panels], _image(confusion)).encode(),
        project.report / "learning_curves.png": curves,
        project.report / "confusion_matrix.png": confusion,
    }
    for path, data in content.items():
        with atomic_write(path) as aside:
            aside.write_bytes(data)
    return list(content)


def page(found: Results, curves: Sequence[EmbeddedImage], confusion: EmbeddedImage) -> str:
    """The HTML page. `curves` has one figure for each of plots.PANELS."""
    environment = Environment(
        loader=PackageLoader("pipeline.reporting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": formats.percent,
        "certainty": formats.certainty,
        "count": formats.count,
        "magnitude": formats.magnitude,
        "speed": formats.speed,
        "duration": duration,
        "memory": formats.memory,
        "moment": formats.moment,
        "yaml": formats.as_yaml,
    }
    test, validation = found.metrics.evaluate, found.history["validation_accuracy"]
    best = max(range(len(validation)), key=validation.__getitem__)
    sections: dict[str, dict[str, Any]] = {}
    for name, value in found.run.values.items():
        section, _, key = name.rpartition(".")
        sections.setdefault(section, {})[key] = value
    return environment.get_template("report.html.j2").render(
        run=found.run,
        epochs=len(validation),
        training=found.metrics.train,
        test=test,
        # One decimal would turn 99.97 % into a perfect 100 %.
        digits=1 if test.accuracy_high - test.accuracy_low >= 0.002 else 2,
        test_images=found.test_images,
        wrong=found.wrong,
        most_frequent=found.most_frequent,
        best_epoch=int(found.history["epoch"][best]),
        best=validation[best],
        last=validation[-1],
        curves=curves,
        confusion=confusion,
        confused=found.most_confused(5),
        weakest_first=sorted(found.per_class, key=lambda score: score.f1),
        mistakes=[(mistake, _thumbnail(mistake)) for mistake in found.mistakes],
        source_change=found.source_change,
        grids=[(grid, _image(grid.figure) if grid.figure else None) for grid in found.grids],
        sections=sections,
    )


def _image(png: bytes) -> EmbeddedImage:
    """A PNG file of `plots` for the page."""
    with Image.open(io.BytesIO(png)) as image:
        shrink = 96 / plots.PIXELS_AN_INCH  # CSS has 96 pixels an inch
        return EmbeddedImage(_data_uri(png), image.width * shrink, image.height * shrink)


def _thumbnail(mistake: Mistake) -> EmbeddedImage:
    """The image of a mistake for the page."""
    buffer = io.BytesIO()
    grey = mistake.pixels.shape[2] == 1
    image = Image.fromarray(mistake.pixels[:, :, 0] if grey else mistake.pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(buffer, format="png")
    return EmbeddedImage(_data_uri(buffer.getvalue()), image.width, image.height)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
