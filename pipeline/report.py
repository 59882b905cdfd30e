"""Puts what a training and its evaluation found on one HTML page that opens from disk, without a network.

    python -m pipeline.report       (or `dvc repro report`)

The page has the result with its interval, learning curves, the confusion matrix, the most certain mistakes as
images, studies of all combinations (`python -m pipeline.study`) if there are any, and how all of it was made. It is
made from result files alone: neither params.yaml nor the test set is read. The page, learning_curves.png and
confusion_matrix.png go to results/report and into the run in MLflow.
"""

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import cli, tracking
from pipeline.files import Project, atomic_write

if TYPE_CHECKING:
    from pipeline.reporting.results import Mistake, Results

THUMBNAIL = 160
"""Pixels: larger images of mistakes are made smaller, so that 200 of them still fit on a page."""


@dataclass(frozen=True)
class EmbeddedImage:
    """An image inside the page: its data URI and its size in CSS pixels."""

    source: str
    width: float
    height: float


def report(project: Project) -> None:
    """The stage: writes the page and its images and adds them to the run in MLflow."""
    from pipeline.reporting import results

    found = results.read(project)
    index, *images = write(project, found)
    with tracking.Tracker(project) as tracker:
        run = tracker.open(found.run["key"], name=found.run["name"])
        run.log_file(index, folder="report")
        for image in images:
            run.log_file(image, folder="plots")
        run.finish("finished")
    print(f"wrote {index.relative_to(project.root)}: open it in a browser")


def write(project: Project, found: "Results") -> list[Path]:
    """Writes the page, learning_curves.png and confusion_matrix.png, and returns their paths in this order."""
    from pipeline.reporting import plots

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


def page(found: "Results", curves: Sequence[EmbeddedImage], confusion: EmbeddedImage) -> str:
    """The HTML page; `curves` are one image for each of the panels of `plots`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipeline.reporting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "certainty": certainty,
        "count": count,
        "magnitude": magnitude,
        "speed": speed,
        "duration": duration,
        "memory": memory,
        "moment": moment,
        "yaml": as_yaml,
    }
    test, validation = found.metrics["evaluate"], found.history["validation_accuracy"]
    best = max(range(len(validation)), key=validation.__getitem__)
    sections: dict[str, dict[str, Any]] = {}
    for name, value in found.run["values"].items():
        section, _, key = name.rpartition(".")
        sections.setdefault(section, {})[key] = value
    return environment.get_template("report.html.j2").render(
        run=found.run,
        epochs=len(validation),
        training=found.metrics["train"],
        test=test,
        # One decimal would turn 99.97 % into a perfect 100 %.
        digits=1 if test["accuracy_high"] - test["accuracy_low"] >= 0.002 else 2,
        test_images=found.images,
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
        studies=[(study, _image(study.figure) if study.figure else None) for study in found.studies],
        sections=sections,
    )


def _image(png: bytes) -> EmbeddedImage:
    """A PNG file of `plots` for the page."""
    from PIL import Image

    from pipeline.reporting.plots import PIXELS_AN_INCH

    with Image.open(io.BytesIO(png)) as image:
        shrink = 96 / PIXELS_AN_INCH  # CSS has 96 pixels an inch
        return EmbeddedImage(_data_uri(png), image.width * shrink, image.height * shrink)


def _thumbnail(mistake: "Mistake") -> EmbeddedImage:
    """The image of a mistake for the page."""
    from PIL import Image

    buffer = io.BytesIO()
    grey = mistake.pixels.shape[2] == 1
    image = Image.fromarray(mistake.pixels[:, :, 0] if grey else mistake.pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(buffer, format="png")
    return EmbeddedImage(_data_uri(buffer.getvalue()), image.width, image.height)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def percent(share: float, digits: int = 1) -> str:
    """0.9012 as `90.1 %`, with a space that does not break."""
    return f"{100 * share:.{digits}f}\u00a0%"


def certainty(share: float) -> str:
    """A confidence in percent; one just below 1 does not become a certainty by rounding."""
    return f"over {percent(0.999)}" if 0.9995 <= share < 1 else percent(share)


def count(number: float) -> str:
    """10000 as `10,000`."""
    return f"{number:,.0f}"


def magnitude(number: float) -> str:
    """Two significant digits and a suffix for large numbers: 269722 as `0.27 M`, 41e6 as `41 M`."""
    for floor, unit, suffix in ((1e9, 1e9, "G"), (1e5, 1e6, "M"), (1e4, 1e3, "k")):
        if number >= floor:
            return f"{_significant(number / unit)}\u00a0{suffix}"
    return count(number)


def speed(images_per_second: float) -> str:
    return f"{_significant(images_per_second)} images/s"


def _significant(number: float) -> str:
    """Two significant digits at least, and all of those before the point."""
    decimals = max(0, 1 - math.floor(math.log10(number))) if number > 0 else 0
    return f"{number:,.{decimals}f}"


def duration(seconds: float) -> str:
    """3754 as `1 h 2 min`, 754 as `12 min 34 s`, 4.56 as `4.6 s`."""
    if seconds < 60:
        return f"{_significant(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def memory(size: float) -> str:
    """Bytes in MiB or GiB."""
    return f"{size / 2**20:,.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"


def moment(iso: str) -> str:
    """An ISO-8601 moment to the minute, in UTC."""
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def as_yaml(value: Any) -> str:
    """A value as params.yaml has it."""
    return value if isinstance(value, str) else json.dumps(value)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run_stage(report, __doc__, argv)


if __name__ == "__main__":
    raise SystemExit(main())
