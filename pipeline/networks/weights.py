"""The weights of a network on disk."""

from pathlib import Path

import safetensors
import safetensors.torch

from pipeline.errors import PipelineError
from pipeline.files import atomic_write
from pipeline.networks.classifier import Classifier


def save(classifier: Classifier, path: Path) -> None:
    """Writes all weights and buffers in the format safetensors, which holds numbers and can't hold code.

    The metadata of the file is the description of the classifier: class names, shape of the images, how they are
    resized.
    """
    weights = {name: value.cpu().contiguous() for name, value in classifier.state_dict().items()}
    with atomic_write(path) as aside:
        aside.write_bytes(safetensors.torch.save(weights, classifier.description or None))


def load(classifier: Classifier, path: Path) -> None:
    """Reads what `save` wrote into a network of the same architecture.

    Raises PipelineError if the file is missing, damaged or of another network.
    """
    try:
        classifier.load_state_dict(safetensors.torch.load_file(path))
    except FileNotFoundError as error:
        raise PipelineError(f"{path} is missing: run `dvc repro`, or `python -m pipeline.train`.") from error
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise PipelineError(f"{path} does not hold the network of params.yaml ({error}): run `dvc repro`.") from error
