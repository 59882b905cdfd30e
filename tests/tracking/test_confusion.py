"""pipeline.tracking.confusion: the image is looked at pixel by pixel, where a person would look."""

import io
import subprocess
import sys
import time

import pytest
from PIL import Image

from pipeline.tracking import confusion

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def matrix(number: int) -> list[list[int]]:
    """Every class is right 80 times, and taken for the next one 20 times."""
    rows = [[0] * number for _ in range(number)]
    for index in range(number):
        rows[index][index] = 80
        rows[index][(index + 1) % number] = 20
    return rows


def corners(image: Image.Image, number: int) -> list[list[tuple[int, ...]]]:
    """The colours of the cells, beside what is written in them; the heat map ends a margin before the right edge."""
    cell = confusion._cell(number)
    left, top = image.width - 20 - number * cell, 20
    inset = min(3, cell // 2)
    return [
        [image.getpixel((left + column * cell + inset, top + row * cell + inset)) for column in range(number)]
        for row in range(number)
    ]


@pytest.mark.parametrize("number", [2, 10, 20, 21, 100])
def test_shares_of_a_row_are_told_by_colours(number: int) -> None:
    image = opened(confusion.image(matrix(number), [f"class {index}" for index in range(number)]))
    colours = corners(image, number)
    for row in range(number):
        for column in range(number):
            red = colours[row][column][0]
            if row == column:
                assert red < 40
            elif column == (row + 1) % number:
                assert 100 < red < 160
            else:
                assert red > 235


def test_colours_are_those_of_the_shares_to_a_few_levels() -> None:
    for thousandths in (0, 5, 20, 100, 360, 640, 1000):
        rows = [[1000 - thousandths, thousandths], [0, 1]]
        seen = corners(opened(confusion.image(rows, ("no", "yes"))), 2)[0][1]
        wanted = confusion._colour(round(255 * (thousandths / 1000) ** 0.5))
        assert all(abs(one - other) <= 6 for one, other in zip(seen, wanted, strict=True)), thousandths


def test_a_class_without_images_is_a_white_row() -> None:
    colours = corners(opened(confusion.image([[0, 0], [1, 3]], ("none", "some"))), 2)
    assert min(colours[0][0]) > 235
    assert min(colours[0][1]) > 235


def test_rows_columns_and_cells_are_written_on_up_to_twenty_classes_and_not_beyond() -> None:
    def dark_pixels(number: int, columns: slice) -> int:
        image = opened(confusion.image([[0] * number for _ in range(number)], ["name"] * number)).convert("L")
        cell = confusion._cell(number)
        left = image.width - 20 - number * cell
        strip = image.crop((columns.start or 0, 20, columns.stop or left - 1, 20 + number * cell))
        return sum(strip.histogram()[:128])

    titles = slice(0, 50)
    assert dark_pixels(20, titles) > 0
    assert dark_pixels(20, slice(50, 0)) > 0
    assert dark_pixels(21, titles) > 0
    assert dark_pixels(21, slice(50, 0)) == 0


def test_a_name_that_the_font_cannot_write_is_written_as_well_as_can_be() -> None:
    assert confusion._shown("  tabby   cat ", 3) == "tabby cat"
    assert confusion._shown("Füchse", 3) == "Fuchse"
    assert confusion._shown("猫", 3) == "class 3"
    assert confusion._shown("", 3) == "class 3"
    assert confusion._shown("a very long name of a class", 3) == "a very long nam…"


def test_the_table_has_the_names_and_the_counts_by_actual_class() -> None:
    assert confusion.columns([[8, 2], [1, 9]], ("cat", "dog")) == {
        "actual \\ predicted": ["cat", "dog"],
        "cat": [8, 1],
        "dog": [2, 9],
    }


def test_the_image_is_small_and_drawn_in_milliseconds() -> None:
    rows = [[1000 if row == column else 11 * row + column for column in range(10)] for row in range(10)]
    content = confusion.image(rows, CIFAR10)
    assert content == confusion.image(rows, CIFAR10)
    assert len(content) < 50_000
    times = []
    for _ in range(10):
        begun = time.thread_time()
        confusion.image(rows, CIFAR10)
        times.append(time.thread_time() - begun)
    assert min(times) < 0.02  # 5 ms where nobody else computes


def test_drawing_needs_neither_matplotlib_nor_numpy() -> None:
    code = (
        "import sys; from pipeline.tracking import confusion; confusion.image([[1, 0], [0, 1]], ['a', 'b'])\n"
        "print([name for name in ('matplotlib', 'numpy', 'torch') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
