"""The content of files that values name: of a network's code, of model.weights."""

from pipeline.config.extra import code_digests
from pipeline.config.files import weights_digest
from pipeline.config.params import Params


def content_tags(settings: Params) -> dict[str, str]:
    """SHA-256 of each such file or package, as tags of a run. Raises ConfigError if one is missing."""
    tags = {f"code.{family}": digest for family, digest in code_digests(settings).items()}
    if digest := weights_digest(settings.model):
        tags["weights.sha256"] = digest
    return tags
