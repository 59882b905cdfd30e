"""A confusion matrix as an image, drawn in milliseconds with Pillow alone, and as a table.

A search records one for each trial. The report has time for a finer one (pipeline.reporting).
"""

import io
import math
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font = FreeTypeFont | ImageFont

Matrix = Sequence[Sequence[int]]
"""Numbers of images: a row for each actual class, a column for each predicted class."""

WITH_COUNTS = 20
"""The most classes with counts in the cells and names beside rows and columns."""

_INK, _TITLE, _LINE = (75, 83, 92), (27, 31, 36), (227, 230, 233)
# White to dark blue, perceptually even.
_COLOURS = ((247, 251, 255), (200, 220, 240), (115, 178, 216), (41, 121, 185), (8, 48, 107))
_DARK = 0.36
"""The share of the row above which a count is white."""
MARGIN = 20
"""Pixels around the image."""
_NAME_SIZE, _TITLE_SIZE = 17, 19
_NAME_LETTERS = 16


def image(matrix: Matrix, classes: Sequence[str]) -> bytes:
    """PNG: a heat map whose colours are shares of the row, with counts and names up to WITH_COUNTS classes."""
    from PIL import Image, ImageDraw

    number = len(classes)
    cell = cell_side(number)
    side = number * cell
    rows = []
    if number <= WITH_COUNTS:
        file = font_file(classes)
        rows = [_text(label(name, index, file), _NAME_SIZE, _INK, file) for index, name in enumerate(classes)]
    widest = max((row.width for row in rows), default=0)
    columns = [row.rotate(90, expand=True) for row in rows] if widest > cell - 4 else rows
    gap = 8 if rows else 0
    left = MARGIN + _TITLE_SIZE + 14 + widest + gap
    below = gap + max((column.height for column in columns), default=0) + 14 + _TITLE_SIZE + MARGIN
    sheet = Image.new("RGB", (left + side + MARGIN, MARGIN + side + below), "white")
    sheet.paste(_heat_map(matrix, number).resize((side, side), Image.Resampling.NEAREST), (left, MARGIN))
    draw = ImageDraw.Draw(sheet)
    if cell >= 8:
        for line in range(number + 1):
            along = line * cell
            draw.line([(left + along, MARGIN), (left + along, MARGIN + side)], fill=_LINE)
            draw.line([(left, MARGIN + along), (left + side, MARGIN + along)], fill=_LINE)
    else:
        draw.rectangle([(left - 1, MARGIN - 1), (left + side, MARGIN + side)], outline=_LINE)
    for index, (row, column) in enumerate(zip(rows, columns, strict=True)):
        middle = index * cell + cell // 2
        sheet.paste(row, (left - gap - row.width, MARGIN + middle - row.height // 2))
        sheet.paste(column, (left + middle - column.width // 2, MARGIN + side + gap))
    if number <= WITH_COUNTS:
        _write_counts(sheet, matrix, left, cell)
    actual = _text("actual", _TITLE_SIZE, _TITLE).rotate(90, expand=True)
    predicted = _text("predicted", _TITLE_SIZE, _TITLE)
    sheet.paste(actual, (MARGIN, MARGIN + (side - actual.height) // 2))
    sheet.paste(predicted, (left + (side - predicted.width) // 2, sheet.height - MARGIN - predicted.height))
    buffer = io.BytesIO()
    # With a palette the file has a third of the size and is faster to write.
    sheet.quantize(palette=_palette(), dither=Image.Dither.NONE).save(buffer, "png", compress_level=3)
    return buffer.getvalue()


def columns(matrix: Matrix, classes: Sequence[str]) -> dict[str, list[str] | list[int]]:
    """A table that looks like the matrix: a first column of actual classes, then one for each predicted class."""
    predicted: dict[str, list[str] | list[int]] = {
        name: [int(row[index]) for row in matrix] for index, name in enumerate(classes)
    }
    return {r"actual \ predicted": list(classes)} | predicted


def cell_side(number: int) -> int:
    """The side of a cell in pixels, for a number of classes."""
    return max(36, min(64, 520 // number)) if number <= WITH_COUNTS else max(1, 600 // number)


def _heat_map(matrix: Matrix, number: int) -> "Image":
    """An image of one pixel per cell."""
    from PIL import Image

    pixels = bytearray()
    for row in matrix:
        total = max(sum(row), 1)
        for count in row:
            pixels += _colour(round(255 * math.sqrt(count / total)))
    return Image.frombytes("RGB", (number, number), bytes(pixels))


@lru_cache(256)
def _colour(level: int) -> bytes:
    """RGB of a level, 0 to 255. Levels are square roots of shares, so that 1 % is visible beside 95 %."""
    position = level / 255 * (len(_COLOURS) - 1)
    index = min(int(position), len(_COLOURS) - 2)
    return _mixed(_COLOURS[index], _COLOURS[index + 1], position - index)


@lru_cache(1)
def _palette() -> "Image":
    """The colours of an image: those of cells, of text, and of the smoothed edges of text on cells."""
    from PIL import Image

    cells = [_colour(round(255 * step / 99)) for step in range(100)]
    greys = [_mixed((255, 255, 255), _TITLE, step / 15) for step in range(16)]
    edges = [
        _mixed(colour, (255, 255, 255) if step / 27 > math.sqrt(_DARK) else _TITLE, part / 6)
        for step in range(27)
        for colour in (tuple(_colour(round(255 * step / 27))),)
        for part in range(2, 7)
    ]
    image = Image.new("P", (1, 1))
    image.putpalette(b"".join([*cells, *greys, bytes(_LINE), *edges]))
    return image


def _mixed(first: Sequence[int], second: Sequence[int], part: float) -> bytes:
    return bytes(round(low + (high - low) * part) for low, high in zip(first, second, strict=True))


def _write_counts(sheet: "Image", matrix: Matrix, left: int, cell: int) -> None:
    longest = max((f"{count:,}" for row in matrix for count in row), key=len)
    size = next((size for size in range(18, 7, -1) if _font(size).getlength(longest) <= cell - 6), 7)
    for index, row in enumerate(matrix):
        dark = _DARK * max(sum(row), 1)
        for column, count in enumerate(row):
            if count:
                number = _number(count, size)
                x = left + column * cell + cell // 2 - number.width // 2
                y = MARGIN + index * cell + cell // 2 - number.height // 2
                sheet.paste("white" if count > dark else _TITLE, (x, y), number)


@lru_cache(2048)
def _number(count: int, size: int) -> "Image":
    """A mask of a count's text, centred. Cached: the trials of a study have many counts in common."""
    from PIL import Image, ImageDraw

    font = _font(size)
    mask = Image.new("L", (math.ceil(font.getlength(f"{count:,}")) + 2, 2 * size))
    ImageDraw.Draw(mask).text((mask.width // 2, mask.height // 2), f"{count:,}", 255, font, anchor="mm")
    return mask


@lru_cache(256)
def _text(text: str, size: int, colour: tuple[int, int, int], file: str | None = None) -> "Image":
    from PIL import Image, ImageDraw

    font = _font(size, file)
    image = Image.new("RGB", (math.ceil(font.getlength(text)) + 1, round(1.3 * size)), "white")
    ImageDraw.Draw(image).text((0, image.height // 2), text, colour, font, anchor="lm")
    return image


def font_file(classes: Sequence[str]) -> str | None:
    """The file of an installed font for names that Pillow's own font lacks letters of; None for Pillow's."""
    letters = frozenset("".join(classes)) - set("\n\t")
    if not any(_lacks(letter) for letter in letters):
        return None
    from pipeline import fonts

    return fonts.covering(letters)


def label(name: str, index: int, file: str | None = None) -> str:
    """The class's name as it is drawn: shortened, or without accents or as a number where the font lacks letters."""
    name = " ".join(name.split())
    if file is None and any(_lacks(letter) for letter in name):
        decomposed = unicodedata.normalize("NFKD", name)  # Füchse -> Fuchse
        name = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    if not name or (file is None and any(_lacks(letter) for letter in name)):
        return f"class {index}"
    return name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 1] + "…"


@lru_cache(1024)
def _lacks(letter: str) -> bool:
    font = _font(_NAME_SIZE)
    missing, mask = font.getmask("\uffff"), font.getmask(letter)
    return letter != "\uffff" and mask.size == missing.size and bytes(mask) == bytes(missing)


@lru_cache(32)
def _font(size: int, file: str | None = None) -> "Font":
    from PIL import ImageFont

    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
