"""A network from a file of weights alone, by the description in its metadata."""

import json
from pathlib import Path

from pipeline.config import Model
from pipeline.errors import PipelineError
from pipeline.networks.classifier import Classifier
from pipeline.networks.registry import build
from pipeline.networks.weights import description, load
from pipeline.records import Meta


def restore(path: Path) -> Classifier:
    """The network that `networks.save` wrote to `path`, in evaluation mode.

    Raises PipelineError if the file is missing, damaged, or of a version that did not describe its network, and
    ConfigError if the code of a user's network is not where it was.
    """
    found = description(path)
    try:
        model = Model.model_validate_json(json.dumps(found["model"]))
        channels, height, width = found["shape"]
        # The normalisation is part of the weights.
        meta = Meta(
            name=found["data"],
            classes=tuple(found["classes"]),
            shape=(channels, height, width),
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
            counts={},
            digest=found["digest"],
            source="",
            highest_float=found["highest_float"],
        )
    except (KeyError, ValueError) as error:
        raise PipelineError(
            f"{path} does not say which network its weights are of, as files of this version do: train it again, by "
            "`dvc repro -f train`."
        ) from error
    network = build(model, meta, seed=0, initial=False)
    load(network, path)
    return network.eval()
