"""Numbers as the report writes them."""

import json
import math
from datetime import UTC, datetime
from typing import Any


def percent(share: float, digits: int = 1) -> str:
    """0.9012 as `90.1 %`, with a space that does not break."""
    return f"{100 * share:.{digits}f}\u00a0%"


def count(number: float) -> str:
    """10000 as `10,000`."""
    return f"{number:,.0f}"


def magnitude(number: float) -> str:
    """Two significant digits and a suffix for large numbers: 269722 as `0.27 M`, 41e6 as `41 M`."""
    for floor, unit, suffix in ((1e9, 1e9, "G"), (1e5, 1e6, "M"), (1e4, 1e3, "k")):
        if number >= floor:
            return f"{significant(number / unit)}\u00a0{suffix}"
    return count(number)


def significant(number: float) -> str:
    """Two significant digits at least, and all of those before the point."""
    decimals = max(0, 1 - math.floor(math.log10(number))) if number > 0 else 0
    return f"{number:,.{decimals}f}"


def memory(size: float) -> str:
    """Bytes in MiB or GiB."""
    return f"{size / 2**20:,.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"


def moment(iso: str) -> str:
    """An ISO-8601 moment to the minute, in UTC."""
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def as_yaml(value: Any) -> str:
    """A value as params.yaml has it."""
    return value if isinstance(value, str) else json.dumps(value)
