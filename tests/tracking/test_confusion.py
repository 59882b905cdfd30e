"""pipeline.tracking.confusion: the pixels of the image, where a person would look."""

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
    """Of each class 80 images are predicted rightly, and 20 as the next class."""
    rows = [[0] * number for _ in range(number)]
    for index in range(number):
        rows[index][index] = 80
        rows[index][(index + 1) % number] = 20
    return rows


def corners(image: Image.Image, number: int) -> list[list[tuple[int, ...]]]:
    """The colours of the cells, beside their counts. The heat map ends a margin before the right edge."""
    cell = confusion.cell_side(number)
    left, top = image.width - confusion.MARGIN - number * cell, confusion.MARGIN
    inset = min(3, cell // 2)
    return [
        [image.getpixel((left + column * cell + inset, top + row * cell + inset)) for column in range(number)]
        for row in range(number)
    ]


@pytest.mark.parametrize("number", [2, 10, 20, 21, 100])
def test_a_darker_cell_is_a_larger_share_of_its_row(number: int) -> None:
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


@pytest.mark.parametrize(
    ("share", "colour"),
    [
        (0.0, (247, 251, 255)),
        (0.0625, (200, 220, 240)),
        (0.140625, (157, 199, 228)),  # halfway between its neighbours: the square root of the share is 3/8
        (0.25, (115, 178, 216)),
        (0.5625, (41, 121, 185)),
        (1.0, (8, 48, 107)),
    ],
)
def test_the_colour_of_a_cell_depends_on_the_square_root_of_its_share(
    share: float, colour: tuple[int, int, int]
) -> None:
    count = round(6400 * share)
    seen = corners(opened(confusion.image([[6400 - count, count], [0, 1]], ("no", "yes"))), 2)[0][1]
    assert seen == pytest.approx(colour, abs=6)  # the palette has 100 of the colours


def test_one_percent_is_visible() -> None:
    (_, none), (_, some) = corners(opened(confusion.image([[100, 0], [99, 1]], ("no", "yes"))), 2)
    assert none[0] - some[0] >= 10


def test_a_class_without_images_has_a_white_row() -> None:
    colours = corners(opened(confusion.image([[0, 0], [1, 3]], ("none", "some"))), 2)
    assert min(colours[0][0]) > 235
    assert min(colours[0][1]) > 235


@pytest.mark.parametrize(("number", "shown"), [(20, True), (21, False)])
def test_names_and_counts_are_shown_for_up_to_twenty_classes(number: int, shown: bool) -> None:
    # Equal counts: all cells have a light colour, and dark pixels are text.
    image = opened(confusion.image([[7] * number for _ in range(number)], ["name"] * number)).convert("L")
    side = number * confusion.cell_side(number)
    left, top = image.width - confusion.MARGIN - side, confusion.MARGIN

    def has_text(first_column: int, end_column: int) -> bool:
        return sum(image.crop((first_column, top, end_column, top + side)).histogram()[:128]) > 0

    assert has_text(0, 50), "the title of the rows"
    assert has_text(50, left - 1) == shown, "names"
    assert has_text(left, left + side) == shown, "counts"


def test_a_name_that_is_long_or_has_letters_that_the_font_lacks_is_shown_in_another_form() -> None:
    assert confusion.label("  tabby   cat ", 3) == "tabby cat"
    assert confusion.label("Füchse", 3) == "Fuchse"
    assert confusion.label("猫", 3) == "class 3"
    assert confusion.label("", 3) == "class 3"
    assert confusion.label("a very long name of a class", 3) == "a very long nam…"


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
