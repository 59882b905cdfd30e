"""The values of one configuration, as every room of the search passes them on."""

from collections.abc import Mapping
from typing import TypeAlias

from pipeline.config import Scalar

Values: TypeAlias = Mapping[str, Scalar]
"""By dotted name; without the keys whose `when` does not hold."""
