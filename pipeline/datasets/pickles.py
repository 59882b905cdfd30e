"""Reads the pickles of CIFAR-10 without executing anything that they ask for.

A pickle is a program that calls the functions it names. Here the names in CIFAR's files stand for classes of this
module that only record their arguments. Every other name is an error. The recorded arguments are checked before arrays
are made from them.
"""

import io
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt


class PickleRefused(Exception):
    """The pickle is damaged or holds something else than CIFAR's arrays. Nothing of it was executed."""


class _Type:
    """Stands for numpy.dtype. Records the type code, such as "u1"."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands for numpy.ndarray. Records the state that NumPy would be given."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any = None) -> bytes:
    """Stands for codecs.encode: Python 3 writes bytes in this form for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise PickleRefused("asks for an encoding that CIFAR's files do not use")
    return text.encode("latin1")


_STANDS_FOR = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STANDS_FOR[module, name]
        except KeyError:
            raise PickleRefused(f"asks for {module}.{name}, which was not executed") from None


def load(data: bytes) -> dict[str, Any]:
    """The dictionary in a CIFAR pickle, with text keys. `uint8_array` converts an array in it.

    Raises PickleRefused for any other pickle.
    """
    try:
        content = _Reader(io.BytesIO(data), encoding="bytes").load()
    except PickleRefused:
        raise
    except Exception as error:  # the unpickler raises nearly anything for a crafted or damaged pickle
        raise PickleRefused(f"is not a valid pickle ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise PickleRefused("holds no dictionary")
    return {text(key): value for key, value in content.items()}


def text(value: Any) -> str:
    """A string from a pickle of Python 2 or 3. Raises PickleRefused for any other value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    raise PickleRefused(f"holds {type(value).__name__} where a text should be")


def uint8_array(value: Any, columns: int) -> npt.NDArray[np.uint8]:
    """The array [N, columns] that `value`, from a loaded dictionary, stands for. Raises PickleRefused."""
    match getattr(value, "state", None) if isinstance(value, _Array) else None:
        case (_, (int() as rows, int() as width), _Type(code=code), bool() | int() as by_columns, bytes() as values):
            if code in ("u1", b"u1") and width == columns and rows > 0 and len(values) == rows * columns:
                array = np.frombuffer(values, dtype=np.uint8)
                return array.reshape(rows, columns, order="F" if by_columns else "C")
    raise PickleRefused(f"holds no uint8 array of N x {columns} values where its images should be")
