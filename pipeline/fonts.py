"""Fonts of the machine for class names that the fonts of matplotlib and Pillow lack letters of, such as Korean ones."""

from functools import cache

_PLACEHOLDERS = "LastResort"
"""A font of matplotlib's that has a box for every letter."""


@cache
def covering(letters: frozenset[str]) -> str | None:
    """The file of an installed font that has all `letters`, a regular sans-serif one if there is one; None if none has.

    It looks at all installed fonts, which takes up to seconds where there are thousands.
    """
    from matplotlib import font_manager

    fonts = sorted(
        (font.weight not in (400, "normal", "regular"), "Sans" not in font.name, font.name, font.fname)
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and _PLACEHOLDERS not in font.fname
    )
    for *_, file in fonts:
        try:
            charmap = font_manager.get_font(file).get_charmap()
        except (OSError, RuntimeError):  # deleted since matplotlib listed it, or damaged
            continue
        if all(ord(letter) in charmap for letter in letters):
            return file
    return None
