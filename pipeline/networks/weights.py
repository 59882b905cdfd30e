"""The weights of a network on disk."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.files import atomic_write
from pipeline.networks.classifier import Classifier


def save(classifier: Classifier, path: Path) -> None:
    """Writes all weights and buffers in the format safetensors, which holds numbers and can't hold code.

    Its metadata has the description of the classifier as JSON: class names, shape of the images, how they are resized,
    the section model. So the file alone suffices for predictions (restored.py).
    """
    write(classifier.description, classifier.state_dict(), path)


def write(description: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> None:
    """The same for a network of which there are only the description and the state_dict."""
    # One entry: several have no order of their own, and equal models are to be equal files.
    metadata = {"description": json.dumps(description, ensure_ascii=False)}
    tensors = {name: value.cpu().contiguous() for name, value in weights.items()}
    with atomic_write(path) as aside:
        aside.write_bytes(safetensors.torch.save(tensors, metadata))


def description(path: Path) -> dict[str, Any]:
    """The description that `save` wrote; empty in files of other programs. Raises PipelineError."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            found: dict[str, Any] = json.loads((file.metadata() or {}).get("description", "{}"))
    except FileNotFoundError as error:
        raise PipelineError(f"{path} is missing: run `dvc repro`, or `python -m pipeline.train`.") from error
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise PipelineError(f"{path} can't be read as safetensors ({error}).") from error
    return found


def load(classifier: Classifier, path: Path) -> None:
    """Reads what `save` wrote into a network of the same architecture.

    Raises PipelineError if the file is missing, damaged or of another network.
    """
    try:
        classifier.load_state_dict(safetensors.torch.load_file(path))
    except FileNotFoundError as error:
        raise PipelineError(f"{path} is missing: run `dvc repro`, or `python -m pipeline.train`.") from error
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = _first_problem(str(error))
        raise PipelineError(f"{path} does not hold the network of params.yaml ({reason}): run `dvc repro`.") from error


def _first_problem(text: str) -> str:
    """Of PyTorch's list of all weights that don't fit the first one, on a line."""
    heading, *problems = [line.strip().rstrip(".") for line in text.strip().splitlines()]
    if not problems:
        return heading
    first = problems[0] if len(problems[0]) <= 200 else f"{problems[0][:200]}..."
    return first + (f", and {len(problems) - 1} more" if len(problems) > 1 else "")
