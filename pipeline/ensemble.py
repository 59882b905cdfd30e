"""Puts the best networks of a search together, without training: an ensemble and, where that works, a soup.

examples:
  python -m pipeline.ensemble                      of the best 5 trials of the study main
  python -m pipeline.ensemble --top 10 --study night
  python -m pipeline.ensemble --confirmed          those trained again with other seeds may take part too
  python -m pipeline.ensemble --without 3          as if there were no trial 3

An ensemble is the mean of its members' probabilities, a soup one network with the mean of its members' weights. Both
are chosen on the validation part; they and the single best network are scored on the test set once, at the end.
results/ensemble has what came out, `mlflow ui` too.
"""

import argparse
import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.cli import guarded

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.evaluation.ensembles import Member
    from pipeline.files import Project
    from pipeline.search.studies.finished import Study

DEFAULT_STUDY = "main"
DEFAULT_TOP = 5


@dataclass(frozen=True)
class EnsembleOptions:
    """What the command line asks for."""

    study: str = DEFAULT_STUDY
    top: int = DEFAULT_TOP
    confirmed: bool = False
    without: frozenset[int] = frozenset()


def ensemble(project: "Project", options: EnsembleOptions, console: "Console") -> dict[str, Any]:
    """Does what the command says and returns what ensemble.json has.

    Raises ConfigError, DataError, TrackingError; PipelineError where there is nothing to put together.
    """
    from pipeline import config
    from pipeline.evaluation.ensembles import Combiner, groups
    from pipeline.files import atomic_write
    from pipeline.records import load_meta
    from pipeline.search.studies import finished

    settings = config.load(project.params)
    meta = load_meta(project.meta)
    study = finished.read(project, options.study, meta, settings.model)
    members = _members(study, options, console)
    with console.status("reading the networks") as status:
        combiner = Combiner(
            project, settings, meta, (study.validation_share, study.validation_seed), members, status.update
        )
        single, chosen = combiner.single(), combiner.ensemble()
        soups = [soup for alike in groups([member.model for member in members]) for soup in combiner.soups(alike)]
        soup = combiner.kept(soups)
        mixtures = {"single": single, "ensemble": chosen} | ({"soup": soup} if soup else {})
        told = {name: combiner.told(mixture) for name, mixture in mixtures.items()}
        # Nothing is chosen any more when the test set is read.
        for name, figures in combiner.tested(mixtures).items():
            told[name]["test"] = {key: value for key, value in asdict(figures).items() if value is not None}
        content = {
            "study": study.name,
            "finished": len(study.trials),
            "validation_pictures": len(combiner.labels),
            "test_pictures": meta.counts["test"],
            "members": combiner.described(),
            "soups": [combiner.told(each) for each in soups],
            "soup": None,
            **told,
        }
    with atomic_write(project.ensemble_figures) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _track(project, study, options, content)
    _tell(content, console)
    return content


def _members(study: "Study", options: EnsembleOptions, console: "Console") -> "list[Member]":
    """The networks that are to be put together, the best one first."""
    from pipeline.errors import PipelineError

    there = [*study.trials, *(study.confirmed if options.confirmed else ())]
    there = sorted((one for one in there if one.trial not in options.without), key=lambda one: -one.accuracy)
    if there and not any(one.weights.exists() for one in there):
        raise PipelineError(
            f"None of the weights that the study {study.name} trained are left in {there[0].weights.parents[1]}: "
            "search again under another --study of `python -m pipeline.tune`."
        )
    members = there[: options.top]
    if len(members) < 2:
        raise PipelineError(
            f"The study {study.name} has {len(members) or 'no'} finished network to put together, and it takes two: "
            f"`python -m pipeline.tune --study {study.name}` with a larger --trials or tune.budget finishes more."
        )
    if len(members) < options.top:
        there_is = f"{len(members)} finished networks"
        console.print(f"The study {study.name} has {there_is}, not the {options.top} asked for.", highlight=False)
    return members


def _track(project: "Project", study: "Study", options: EnsembleOptions, content: Mapping[str, Any]) -> None:
    """A run of its own below the study's: another --top is another run."""
    from pipeline import provenance
    from pipeline.tracking import Tracker

    with Tracker(project) as tracker:
        run = tracker.open(
            f"ensemble-{uuid.uuid4().hex}",
            name=f"ensemble of study {study.name}",
            parent=f"study-{study.key}",
            new=True,
        )
        with run.batch():
            run.log_params(
                {
                    "ensemble.study": study.name,
                    "ensemble.top": options.top,
                    "ensemble.confirmed": options.confirmed,
                    "ensemble.without": ", ".join(map(str, sorted(options.without))) or None,
                    **{f"{name}.members": _shown(content[name]["members"]) for name in _NAMES if content[name]},
                }
            )
            run.set_tags(provenance.tags(provenance.collect(project)) | {"study": study.name})
            run.log_metrics(
                {
                    f"{name}.{part}.{key}": value
                    for name in _NAMES
                    if content[name]
                    for part in ("validation", "test")
                    for key, value in content[name][part].items()
                }
            )
            run.log_file(project.ensemble_figures)
            if content["soup"]:
                run.log_file(project.soup)
        run.finish("finished")


_NAMES = ("single", "ensemble", "soup")


def _tell(content: Mapping[str, Any], console: "Console") -> None:
    """All in one table, and in words what did not work."""
    from rich.table import Table

    table = Table("", "members", "validation", "test (95 % interval)", "test NLL", box=None, pad_edge=False)
    for name in _NAMES:
        mixture = content[name]
        if not mixture:
            continue
        test = mixture["test"]
        table.add_row(
            mixture["kind"],
            _shown(mixture["members"]),
            f"{mixture['validation']['accuracy']:.2%}",
            f"{test['accuracy']:.2%} ({test['accuracy_low']:.2%} to {test['accuracy_high']:.2%})",
            f"{test['nll']:.4f}",
        )
    console.print(table)
    if len(content["ensemble"]["members"]) == 1:
        console.print("The ensemble is the best network alone: with no other did it do better on validation.")
    accuracies = {member["name"]: member["validation"]["accuracy"] for member in content["members"]}
    if not content["soups"]:
        console.print("No soup: no two of the networks have the same model.*, so that no weights could be averaged.")
    elif not content["soup"]:
        best = max(content["soups"], key=lambda soup: soup["validation"]["accuracy"] if len(soup["members"]) > 1 else 0)
        alone = max(accuracies[name] for name in best["members"])
        console.print(
            f"No soup: averaging weights lowered the validation accuracy, as is usual of networks that began with "
            f"different ones ({_shown(best['members'])}: {best['validation']['accuracy']:.2%}, the best of them alone "
            f"{alone:.2%}).",
            highlight=False,
        )
    elif content["soup"]["validation"]["accuracy"] < content["single"]["validation"]["accuracy"]:
        console.print("The soup is better than its ingredients, but the best network alone is better on validation.")
    console.print(
        f"Chosen on {content['validation_pictures']:,} validation images, scored on {content['test_pictures']:,} "
        "of the test set. Written: results/ensemble.",
        highlight=False,
    )


def _shown(members: Mapping[str, int]) -> str:
    return ", ".join(f"{name} x {count}" if count > 1 else name for name, count in members.items())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.ensemble", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--top", default=DEFAULT_TOP, type=_top, metavar="K", help=f"networks, default: {DEFAULT_TOP}")
    parser.add_argument("--study", default=DEFAULT_STUDY, metavar="NAME", help=f"default: {DEFAULT_STUDY}")
    parser.add_argument("--confirmed", action="store_true", help="take networks of the confirmation too")
    parser.add_argument(
        "--without", action="append", default=[], type=_trial, metavar="N", help="leave a trial out, can be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON; all else goes to stderr")
    arguments = parser.parse_args(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from pipeline.files import Project

    # With --json standard output is for machines alone.
    console = Console(stderr=arguments.json, width=None if sys.stdout.isatty() else 160)
    options = EnsembleOptions(arguments.study, arguments.top, arguments.confirmed, frozenset(arguments.without))
    content = ensemble(Project.here(), options, console)
    if arguments.json:
        print(json.dumps(content, indent=2))


def _top(text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 2, got {text}")
    return int(text)


def _trial(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be the number of a trial, got {text}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
