"""The report: result files as one HTML page, with two of its figures as PNG files beside it."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from pipeline import config
from pipeline.files import Project, atomic_write
from pipeline.reporting import (
    answers,
    drawings,
    formats,
    language,
    plots,
    search_answers,
    search_history,
    search_pictures,
)
from pipeline.reporting.before import Before, previous
from pipeline.reporting.comparison import Comparison, Flipped, FlippedImage
from pipeline.reporting.language import ENGLISH, Language
from pipeline.reporting.results import Results
from pipeline.reporting.search_history import SearchHistory

SCRIPTS = ("charts.js", "model.js", "confusion.js", "trials.js", "space.js", "surface.js", "tables.js")
"""In this order, as one script."""

THUMBNAIL = 160
"""Pixels of the longer side of a mistake's image: 200 of them still make a small page."""


@dataclass(frozen=True)
class EmbeddedImage:
    """An image inside the page: its data URI, width and height in CSS pixels."""

    source: str
    width: float
    height: float


@dataclass(frozen=True)
class Beside:
    """What the page shows beside the results of a training, as far as it is there."""

    search: SearchHistory | str
    """Or a sentence that says why there is none."""
    before: Before | None = None
    comparison: Comparison | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    """The pages of runs in MLflow, by key."""
    refresh_s: int | None = None
    """Seconds after which the page loads itself again."""
    language: Language = ENGLISH


def beside(
    project: Project,
    links: Mapping[str, str],
    *,
    comparison: Comparison | None = None,
    refresh_s: int | None = None,
) -> Beside:
    """What there is on disk. Raises ConfigError for a params.yaml that is wrong."""
    # The language is no value of the results: it is that of the file, if there is one.
    name = config.load(project.params).report.language if project.params.exists() else "en"
    return Beside(
        search_history.read(project.search_history),
        None if refresh_s else previous(project),
        comparison,
        links,
        refresh_s,
        language.load(name),
    )


def write(project: Project, found: Results, other: Beside) -> list[Path]:
    """Writes the page and its pictures as PNG files, and returns their paths in this order."""
    # In English, as the letters of other languages may lack a font.
    data = answers.pictures(found, other.before, answers.seeds(found, other.search), ENGLISH)
    images = {
        "learning_curves": plots.learning_curves(found.history),
        "confusion_matrix": plots.confusion_matrix(found.confusion, found.classes),
    } | drawings.of_result(data)
    content = {project.page: page(found, other).encode()}
    content |= {project.report / f"{name}.png": image for name, image in images.items()}
    for path, written in content.items():
        with atomic_write(path) as aside:
            aside.write_bytes(written)
    return list(content)


def write_alone(path: Path, found: Results | str, other: Beside) -> None:
    """Writes the page without its figures. Without results, `found` says what is missing: then it shows the search."""
    text = page_of_search(found, other) if isinstance(found, str) else page(found, other)
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _environment(say: Language) -> Environment:
    """What fills the templates."""
    environment = Environment(
        loader=FunctionLoader(say.template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": say.percent,
        "certainty": say.certainty,
        "count": formats.count,
        "magnitude": formats.magnitude,
        "speed": say.speed,
        "duration": say.duration,
        "memory": formats.memory,
        "moment": formats.moment,
        "yaml": formats.as_yaml,
        "coded": _coded,
    }
    script = say.of_script(_script())
    environment.globals |= {
        "language": say.name,
        "style": Markup((language.FOLDER / "page.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": Markup("sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()),
    }
    return environment


def page_of_search(missing: str, other: Beside) -> str:
    """The HTML page of a search before there is a result; `missing` says what is missing."""
    say = other.language
    data = {}
    if isinstance(other.search, SearchHistory):
        data["search"] = search_pictures.as_data(other.search, other.links)
    return (
        _environment(say)
        .get_template("search_alone.html.j2")
        .render(
            search_answers.answers(other.search, say),
            missing=missing,
            refresh_s=other.refresh_s,
            data=Markup(_json(data)),
        )
    )


def page(found: Results, other: Beside) -> str:
    """The HTML page."""
    say = other.language
    text = answers.good(found, other.before, say) | answers.fails(found, say) | answers.values(found.run.values)
    text |= answers.training(found) | search_answers.answers(other.search, say)
    seeds = answers.seeds(found, other.search)
    data = answers.pictures(found, other.before, seeds, say)
    if isinstance(other.search, SearchHistory):
        data["search"] = search_pictures.as_data(other.search, other.links)
    run_page = other.links.get(found.run.key)
    suspects = [(one, _thumbnail(one.pixels)) for one in answers.unseen_suspects(found)]
    template = _environment(say).get_template("report.html.j2")
    return template.render(
        text,
        run=found.run,
        training=found.metrics.train,
        test=found.metrics.evaluate,
        test_images=found.test_images,
        wrong=found.wrong,
        most_frequent=found.most_frequent,
        before=other.before,
        seeds=seeds,
        mistakes=[(mistake, _thumbnail(mistake.pixels)) for mistake in answers.by_pair(found.mistakes)],
        suspects=None if found.suspects is None else suspects,
        suspect_mistakes=answers.suspect_mistakes(found),
        source_change=found.source_change,
        grids=[(grid, _image(grid.figure) if grid.figure else None) for grid in found.grids],
        comparison=other.comparison,
        images_gained=_flips(other.comparison.images_gained if other.comparison else None),
        images_lost=_flips(other.comparison.images_lost if other.comparison else None),
        verdict=other.comparison.verdict(say) if other.comparison else None,
        run_page=search_pictures.MLFLOW + run_page if run_page else None,
        refresh_s=other.refresh_s,
        data=Markup(_json(data)),
    )


def _script() -> str:
    """The page's script: it draws the pictures, and sorts and filters the tables."""
    parts = "\n".join((language.FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def _json(data: Any) -> str:
    """JSON that can stand inside of a <script>: no tag can begin or end in it."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _coded(text: str) -> Markup:
    """A sentence in which `a command` stands between backticks."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _image(png: bytes) -> EmbeddedImage:
    """A PNG file of `plots` for the page."""
    with Image.open(io.BytesIO(png)) as image:
        shrink = 96 / plots.PIXELS_AN_INCH  # CSS has 96 pixels an inch
        return EmbeddedImage(_data_uri(png), image.width * shrink, image.height * shrink)


def _flips(images: Sequence[FlippedImage] | None) -> list[tuple[Flipped, EmbeddedImage]]:
    return [(image.flipped, _thumbnail(image.pixels)) for image in images or ()]


def _thumbnail(pixels: npt.NDArray[np.uint8]) -> EmbeddedImage:
    """A test image for the page: uint8 [H, W, 1 or 3]."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(buffer, format="png")
    return EmbeddedImage(_data_uri(buffer.getvalue()), image.width, image.height)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
