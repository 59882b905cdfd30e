"""The format of a file by its first bytes: of files without an ending, and for the reason why one can't be read."""

from pathlib import Path

READABLE = frozenset({"JPEG", "PNG", "GIF", "BMP", "TIFF", "WebP", "AVIF", "JPEG 2000", "PNM"})

_BEGINNINGS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "PSD"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"<svg", "SVG"),
    (b"PK\x03\x04", "zip"),
)
HEAD_BYTES = 32
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def format_of(path: Path) -> str | None:
    """The format of a file; None if it is unknown. Raises OSError."""
    with path.open("rb") as file:
        return format_by(file.read(HEAD_BYTES))


def format_by(head: bytes) -> str | None:
    """The format of a file by its first bytes; None if it is unknown."""
    if head[4:8] == b"ftyp":
        brands = head[8:12], head[16:20], head[20:24], head[24:28]
        if any(brand in (b"avif", b"avis") for brand in brands):
            return "AVIF"
        return "HEIC" if any(brand in _HEIC_BRANDS for brand in brands) else None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PNM"
    return next((name for beginning, name in _BEGINNINGS if head.startswith(beginning)), None)
