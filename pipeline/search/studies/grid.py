"""A grid: all combinations of some values, each trained to its end. The section `study` of params.yaml declares grids.

`python -m pipeline.study NAME` trains the grid NAME. In Optuna and MLflow it is the study grid-NAME.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import config
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.files import Project
from pipeline.search.space.space import Space
from pipeline.search.studies import catalog
from pipeline.search.studies.commands import GRID


@dataclass(frozen=True)
class GridSpec:
    """A grid that params.yaml declares."""

    name: str
    settings: Config
    """With the values that the grid declares, and its combinations as the space."""

    @classmethod
    def of(cls, project: Project, name: str, given: Mapping[str, Any]) -> "GridSpec":
        """The grid `name`; `given` values, by dotted name, override those of the file and of the grid.

        Raises ConfigError if there is no such grid, and for a value that can't be set because the grid varies or
        decides it.
        """
        whole = config.load(project.params, given)
        settings = config.grid(whole, name)
        if not settings.space:
            raise ConfigError(f"study.{name}.space is empty: name at least one key to vary.")
        for key in given:
            if key.startswith("space."):
                raise ConfigError(
                    f"--set {key}: what the study {name} varies is in params.yaml, in study.{name}.space."
                )
            if key in settings.space:
                raise ConfigError(f"--set {key}: the study {name} varies it (study.{name}.space in params.yaml).")
            if config.fixed_in_grid(key):
                raise ConfigError(f"--set {key}: a study trains all combinations to the end, each once.")
        values = {key: value for key, value in given.items() if key in whole.study[name].values}
        return cls(name, settings.with_values({**values, "tune.trials": Space.of(settings).size}))

    @property
    def study(self) -> str:
        """The name of its study in Optuna, in MLflow and in .studies."""
        return f"{GRID}{self.name}"


@dataclass(frozen=True)
class Measured:
    """A trained network, measured."""

    error: float
    """Share of the test images that are misclassified."""
    parameters: int
    macs: int
    """Multiply-accumulate operations per image."""


def measure(project: Project, settings: Config, weights: Path) -> Measured:
    """The test error of a network, and its size. Raises PipelineError if the weights don't fit."""
    from pipeline import networks
    from pipeline.evaluation.inference import load_network
    from pipeline.evaluation.test_set import predict_test_set
    from pipeline.records import load_meta

    probabilities, labels = predict_test_set(project, settings.model, weights, settings)
    meta = load_meta(project.meta)
    network = load_network(settings.model, weights, meta)
    wrong = float((probabilities.argmax(axis=1) != labels).mean())
    return Measured(wrong, networks.parameters(network), networks.macs(network, meta))


def all_of(project: Project, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each grid in params.yaml: its name, what it varies, its number of combinations, and its trials' states."""
    begun = {study["study"]: study["states"] for study in catalog.all_of(project)}
    grids = [GridSpec.of(project, name, {}) for name in config.load(project.params, given).study]
    return [
        {
            "study": grid.name,
            "varies": list(grid.settings.space),
            "combinations": grid.settings.tune.trials,
            "states": begun.get(grid.study, {}),
        }
        for grid in grids
    ]
