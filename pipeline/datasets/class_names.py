"""Names of directories as names of classes.

Accents are composed (Unicode's NFC), so that a name is one class whatever machine wrote it. Bytes that are not UTF-8
are decoded if they can be.
"""

import os
import re
import unicodedata

from pipeline.errors import DataError

_NOT_UTF8 = "cp1252"  # Windows in western Europe; it has all printable characters of Latin-1


def composed(name: str) -> str:
    """The name in NFC."""
    return unicodedata.normalize("NFC", name)


def is_utf8(name: str) -> bool:
    """Whether a name from the file system was valid UTF-8 there."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def class_name(name: str) -> str:
    """The class that a directory is named for. Raises DataError for bytes that can't be decoded."""
    if is_utf8(name):
        return composed(name)
    try:
        decoded = os.fsencode(name).decode(_NOT_UTF8)
    except UnicodeError:
        decoded = ""
    if not decoded.isprintable() or not decoded:
        raise DataError(
            f"the name of the directory {readable(name)} is neither UTF-8 nor Latin-1, so the name of its class can't "
            "be read. Rename the directory and run again."
        )
    return composed(decoded)


def readable(text: str) -> str:
    """A name or path for messages and records. Bytes that are not UTF-8 are shown as \\xNN."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def natural_key(name: str) -> tuple[list[str | int], str]:
    """The sort key of a class name: numbers count by their value, so that 2 comes before 10."""
    pieces = re.split(r"(\d+)", name)  # text and numbers in turn, beginning with text
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], name
