import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from pipeline import fonts
from pipeline.reporting import plots
from pipeline.tracking import confusion

KOREAN = ("고양이", "개", "새")
NOTHING = np.zeros((3, 3), dtype=np.int64)


@pytest.fixture
def korean_font(tmp_path: Path) -> Iterator[Path]:
    """A font with the letters of KOREAN, full squares all of them, that is installed during the test."""
    letters = sorted(set("".join(KOREAN)))
    names = [".notdef", *(f"letter{number}" for number in range(len(letters)))]
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict(zip(map(ord, letters), names[1:], strict=True)))
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares Sans", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    path = tmp_path / "squares.ttf"
    builder.save(path)
    before = list(font_manager.fontManager.ttflist)
    # The machine may have a font with these letters.
    font_manager.fontManager.ttflist = [font for font in before if "matplotlib" in font.fname]
    font_manager.fontManager.addfont(path)
    fonts.covering.cache_clear()
    yield path
    font_manager.fontManager.ttflist = before
    fonts.covering.cache_clear()


def test_an_installed_font_that_has_all_letters_is_found(korean_font: Path) -> None:
    assert fonts.covering(frozenset("고개")) == str(korean_font)
    assert fonts.covering(frozenset("고\u4dff")) != str(korean_font)


def test_class_names_are_drawn_with_it(korean_font: Path) -> None:
    assert confusion.font_file(KOREAN) == str(korean_font)
    assert [confusion.label(name, 0, str(korean_font)) for name in KOREAN] == list(KOREAN)
    with_names, with_numbers = (
        np.asarray(Image.open(io.BytesIO(confusion.image(NOTHING.tolist(), classes))).convert("L"))
        for classes in (KOREAN, ("\U0010fff0",) * 3)
    )
    # Squares are nearly as dark as the ink; "class 0" is thin lines.
    assert (with_names < 100).sum() > 2 * (with_numbers < 100).sum()
    drawn = [np.asarray(Image.open(io.BytesIO(plots.confusion_matrix(NOTHING, names)))) for names in (KOREAN, "abc")]
    assert (drawn[0] < 100).sum() > 1.2 * (drawn[1] < 100).sum()


def test_without_such_a_font_classes_are_numbers() -> None:
    assert confusion.label("\U0010fff0", 7, confusion.font_file(["\U0010fff0"])) == "class 7"
    assert plots._label("\U0010fff0", 7, plots._font_file(["\U0010fff0"])) == "class 7"


def test_the_labels_of_300_classes_are_legible() -> None:
    image = Image.open(
        io.BytesIO(plots.confusion_matrix(np.eye(300, dtype=np.int64), [f"n{i:03}" for i in range(300)]))
    )
    rows = (np.asarray(image.convert("L"))[:, 40:110] < 160).any(axis=1)
    # The heights of the labels on the left, in pixels of half a CSS pixel.
    edges = np.flatnonzero(np.diff(rows.astype(int)))
    assert np.median(edges[1::2] - edges[::2]) >= 14
