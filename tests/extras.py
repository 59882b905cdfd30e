"""Optional packages."""

import importlib
import os
from typing import Any

import pytest


def needed(name: str) -> Any:
    """The module. Without it the test is skipped, or fails where all tests are to run."""
    return importlib.import_module(name) if os.environ.get("PIPELINE_ALL_TESTS") else pytest.importorskip(name)
