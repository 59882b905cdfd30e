"""A network as an ONNX file, in fp32 or quantised to int8. The packages are the extra `export`."""

import importlib.util
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.exporting.loaded import Loaded

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch.export import ExportedProgram

_INPUT, _OUTPUT, _DESCRIPTION = "images", "logits", "description"
_CALIBRATION_BATCH = 32


def require(*packages: str) -> None:
    """Raises PipelineError, with the command that installs it, if a package is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise PipelineError(f"ONNX needs {' and '.join(missing)}: pip install -e '.[export]'")


def write(program: "ExportedProgram", description: Mapping[str, Any], path: Path) -> None:
    """Writes the graph: `images` uint8 [N, C, H, W] -> `logits` [N, classes] for any N. Raises PipelineError."""
    require("onnx", "onnxscript")
    with _quiet():
        import torch

        converted = torch.onnx.export(program, dynamo=True, verbose=False, input_names=[_INPUT], output_names=[_OUTPUT])
        if converted is None:
            raise AssertionError("torch.onnx.export gives a program where it writes no file")
        converted.model.metadata_props[_DESCRIPTION] = json.dumps(description, ensure_ascii=False)
        converted.save(path, external_data=False)


def quantise(source: Path, images: "npt.NDArray[np.uint8]", path: Path) -> None:
    """Writes the ONNX file `source` with weights and activations of 8 bits; the network's input is uint8 as before.

    The ranges of the activations are those of `images` [N, C, H, W] (static quantisation, with a scale per channel of
    the weights).
    """
    require("onnx", "onnxruntime")
    with _quiet(), tempfile.TemporaryDirectory(prefix="int8-") as temporary:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Batches(quantization.CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self._starts = iter(range(0, len(images), _CALIBRATION_BATCH))

            def get_next(self) -> dict[str, Any] | None:
                start = next(self._starts, None)
                return None if start is None else {_INPUT: images[start : start + _CALIBRATION_BATCH]}

        prepared = Path(temporary, "prepared.onnx")
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(path),
            Batches(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def load(path: Path, threads: int) -> Loaded:
    """Reads what `write` or `quantise` wrote, to be computed by so many threads. Raises PipelineError."""
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        description = json.loads(session.get_modelmeta().custom_metadata_map[_DESCRIPTION])
    except Exception as error:  # onnxruntime has an exception for each kind of damage
        reason = str(error).strip().partition("\n")[0][:200]
        raise PipelineError(f"{path} is no ONNX file of this project ({reason}).") from error

    def logits(images: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.float32]":
        found: npt.NDArray[np.float32] = session.run([_OUTPUT], {_INPUT: images})[0]
        return found

    return Loaded(description, logits)


@contextmanager
def _quiet() -> Iterator[None]:
    """The tools warn of each other's deprecations, and log each step."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
