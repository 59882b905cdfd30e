"""Trains all combinations of a study that params.yaml declares; can be stopped, killed and started again at will.

examples:
  python -m pipeline.study depth                   plain networks and ResNets at several depths: the degradation problem
  python -m pipeline.study depth --set train.epochs=5     the same command goes on after a stop or a kill
  python -m pipeline.study --list                  the studies of params.yaml, and how far they are

A study is a section of params.yaml: study.NAME.space has the keys that it varies, study.NAME.values what else is
otherwise than in the file. results/study/NAME gets a table with the test error of each trial, the learning curves, and
a figure where depth or family is varied; `mlflow ui` has every trial. Nothing is chosen: for that there is
`python -m pipeline.tune`, which never looks at the test set.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.cli import guarded
from pipeline.search.studies import options

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from pipeline.config import Config
    from pipeline.files import Project
    from pipeline.search.studies.grid import Measured


def study(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for. Raises PipelineErrors; KeyboardInterrupt when stopped."""
    from pipeline.files import Project

    console, project = options.console(arguments), Project.here()
    given = options.overrides(arguments)
    if arguments.list:
        _list(project, given, console, as_json=arguments.json)
        return
    from pipeline.search.studies.grid import Grid, name_of
    from pipeline.search.studies.session import Session, TuneOptions

    settings = settings_of(project, arguments.name, given)
    ending = Grid(project, arguments.name, settings, console, partial(measured, project))
    found = Session(project, settings, TuneOptions(name_of(arguments.name)), console, ending).run()
    if arguments.json:
        options.print_json(found)


def settings_of(project: "Project", name: str, given: Mapping[str, Any]) -> "Config":
    """What the study `name` searches, `given` values (by dotted name) in place of the file's and of its own.

    Raises ConfigError where there is no such study, and for a value that the study leaves no room for.
    """
    from pipeline import config
    from pipeline.errors import ConfigError
    from pipeline.search.space.space import Space

    whole = config.load(project.params, given)
    settings = config.grid(whole, name)
    if not settings.space:
        raise ConfigError(f"study.{name}.space is empty: name at least one key to vary.")
    for key in given:
        if key.startswith("space."):
            raise ConfigError(f"--set {key}: what the study {name} varies is in params.yaml, in study.{name}.space.")
        if key in settings.space:
            raise ConfigError(f"--set {key}: the study {name} varies it (study.{name}.space in params.yaml).")
        if config.fixed_in_grid(key):
            raise ConfigError(f"--set {key}: a study trains all combinations to the end, each once.")
    values = {key: value for key, value in given.items() if key in whole.study[name].values}
    return settings.with_values({**values, "tune.trials": Space.of(settings).size})


def measured(project: "Project", settings: "Config", weights: "Path") -> "Measured":
    """The test error of a network, and what it takes. Raises PipelineError where the weights don't fit."""
    from pipeline import networks
    from pipeline.evaluation.inference import load_network
    from pipeline.evaluation.test_set import predict_test_set
    from pipeline.records import load_meta
    from pipeline.search.studies.grid import Measured

    probabilities, labels = predict_test_set(project, settings.model, weights, settings)
    meta = load_meta(project.meta)
    network = load_network(settings.model, weights, meta)
    wrong = float((probabilities.argmax(axis=1) != labels).mean())
    return Measured(wrong, networks.parameters(network), networks.macs(network, meta))


def _list(project: "Project", given: Mapping[str, Any], console: "Console", *, as_json: bool) -> None:
    from rich.table import Table

    from pipeline import config
    from pipeline.search.studies import catalog
    from pipeline.search.studies.grid import name_of

    whole = config.load(project.params, given)
    there = {one["study"]: one for one in catalog.all_of(project)}
    found = []
    for name in whole.study:
        settings = settings_of(project, name, {})
        begun = there.get(name_of(name), {"states": {}})
        found.append(
            {
                "study": name,
                "varies": list(settings.space),
                "combinations": settings.tune.trials,
                "states": begun["states"],
            }
        )
    if as_json:
        options.print_json(found)
    elif not found:
        console.print("params.yaml declares no study: its section study is empty.")
    else:
        table = Table("study", "varies", "combinations", "states", box=None, pad_edge=False)
        for one in found:
            states = ", ".join(f"{count} {state}" for state, count in one["states"].items())
            table.add_row(one["study"], ", ".join(one["varies"]), str(one["combinations"]), states or "not begun")
        console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", type=options.name, metavar="NAME", help="of a study of params.yaml")
    options.add_to(parser)
    arguments = parser.parse_args(argv)
    if not arguments.name and not arguments.list:
        parser.error("name a study; --list shows those of params.yaml")
    return guarded(lambda: study(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
