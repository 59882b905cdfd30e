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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.command import guarded

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.console import Console

    from pipeline.config import Config, Model
    from pipeline.files import Project
    from pipeline.meta import Meta
    from pipeline.models import Classifier
    from pipeline.search.trained import Study, Trained

    Floats: TypeAlias = npt.NDArray[np.float64]
    Ints: TypeAlias = npt.NDArray[np.int64]

DEFAULT_STUDY = "main"
DEFAULT_TOP = 5
ROUNDS = 25
"""Networks, counted as often as they were chosen, that a selection looks at."""
STATISTICS_PICTURES = 5_000
"""Training pictures that the batch norms of a soup are measured on: thousands of values a channel for each of them."""


@dataclass(frozen=True)
class Wish:
    """What the command line asks for."""

    study: str = DEFAULT_STUDY
    top: int = DEFAULT_TOP
    confirmed: bool = False
    without: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Mixture:
    """Networks that were put together."""

    kind: str
    """single, ensemble, greedy soup or uniform soup."""
    counts: Mapping[int, int]
    """How often each takes part, by its position among the members."""
    probabilities: "Floats"
    """[N, classes], of the validation part."""


def ensemble(project: "Project", wish: Wish, console: "Console") -> dict[str, Any]:
    """Does what the command says and returns what ensemble.json has.

    Raises ConfigError, DataError, TrackingError; PipelineError where there is nothing to put together.
    """
    from pipeline import config
    from pipeline.files import written_whole
    from pipeline.meta import load_meta
    from pipeline.search import trained

    settings = config.load(project.params)
    meta = load_meta(project.meta)
    study = trained.read(project, wish.study, meta, settings.model)
    members = _members(study, wish, console)
    with console.status("reading the networks") as status:
        bench = _Bench(project, settings, meta, study, members, status.update)
        single, chosen = bench.single(), bench.ensemble()
        soups = [soup for alike in groups([member.model for member in members]) for soup in bench.soups(alike)]
        soup = bench.kept(soups)
        mixtures = {"single": single, "ensemble": chosen} | ({"soup": soup} if soup else {})
        told = {name: bench.told(mixture) for name, mixture in mixtures.items()}
        # Nothing is chosen any more when the test set is read.
        for name, figures in bench.tested(mixtures).items():
            told[name]["test"] = figures
        content = {
            "study": study.name,
            "finished": len(study.trials),
            "validation_pictures": len(bench.labels),
            "test_pictures": meta.counts["test"],
            "members": bench.described(),
            "soups": [bench.told(each) for each in soups],
            "soup": None,
            **told,
        }
    with written_whole(project.ensemble_figures) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _track(project, study, wish, content)
    _tell(content, console)
    return content


def select(probabilities: "Floats", labels: "Ints", rounds: int = ROUNDS) -> dict[int, int]:
    """How often each of M networks takes part in the ensemble that greedy selection finds, by position.

    `probabilities` are [M, N, classes]. It begins with the best network and adds, `rounds` networks in all, the one
    that does the ensemble the most good or the least harm, be it in it or not; of the ensembles on that way the best
    is taken, and of equal ones the smallest (Caruana et al. 2004, sections 2.1 and 2.2).
    """
    import numpy as np

    total = np.zeros_like(probabilities[0])
    order: list[int] = []
    ranks: list[tuple[float, float]] = []
    for size in range(1, rounds + 1):
        reached = [rank((total + one) / size, labels) for one in probabilities]
        order.append(max(range(len(reached)), key=reached.__getitem__))
        ranks.append(reached[order[-1]])
        total += probabilities[order[-1]]
    best = max(range(rounds), key=ranks.__getitem__)
    return dict(Counter(order[: best + 1]))


def greedy_soup(order: Sequence[int], accuracy_of: Callable[[tuple[int, ...]], float]) -> tuple[int, ...]:
    """The ingredients of the greedy soup of networks in `order`, the best one first (Wortsman et al. 2022, recipe 1).

    One after the other is tried, and stays if the accuracy of the soup, by `accuracy_of`, does not fall.
    """
    kept = tuple(order[:1])
    accuracy = accuracy_of(kept)
    for one in order[1:]:
        tried = accuracy_of((*kept, one))
        if tried >= accuracy:
            kept, accuracy = (*kept, one), tried
    return kept


def groups(models: "Sequence[Model]") -> list[list[int]]:
    """Positions of networks of the same architecture, where there are two or more. Dropout has no weights."""
    found: dict[Model, list[int]] = {}
    for position, model in enumerate(models):
        found.setdefault(model.model_copy(update={"dropout": 0.0}), []).append(position)
    return [alike for alike in found.values() if len(alike) > 1]


def rank(probabilities: "Floats", labels: "Ints") -> tuple[float, float]:
    """The higher the better: the accuracy, then the mean log likelihood, which tells apart what few pictures can't.

    Rounded to nine digits: a mean of equal probabilities is no better than one of them by how it was rounded.
    """
    import numpy as np

    likelihoods = np.take_along_axis(probabilities, labels[:, None], axis=1)
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    return accuracy, round(float(np.log(np.maximum(likelihoods, np.finfo(np.float64).tiny)).mean()), 9)


class _Bench:
    """The members' networks, what they predict for the validation part, and what they become together."""

    def __init__(
        self,
        project: "Project",
        settings: "Config",
        meta: "Meta",
        study: "Study",
        members: "Sequence[Trained]",
        tell: Callable[[str], None],
    ) -> None:
        """Raises ConfigError and DataError; PipelineError where weights don't fit."""
        import numpy as np

        from pipeline import data, evaluate, training

        self._project, self._settings, self._members, self._tell = project, settings, members, tell
        pictures = data.load_pictures(project.training_data, meta)
        trained_on, validation = data.split(pictures.labels, study.validation_share, study.validation_seed)
        self.labels = pictures.labels[validation]
        self._device = evaluate.device_of(settings)
        size, device = settings.evaluate.batch_size, self._device.handle
        self._validation = data.OrderedBatches(pictures, validation, batch_size=size, device=device)
        # In whole batches, as each counts alike, and mixed, as a batch of one class is like no other.
        drawn = np.random.default_rng(0).permutation(trained_on)[:STATISTICS_PICTURES]
        whole = len(drawn) - len(drawn) % size or len(drawn)
        self._statistics = data.OrderedBatches(pictures, drawn[:whole], batch_size=size, device=device)
        self._networks: list[Classifier] = []
        self._probabilities: list[Floats] = []
        for number, member in enumerate(members, start=1):
            tell(f"the validation part by {member.name} ({number} of {len(members)})")
            network = _network(member, meta)
            training.place(network, self._device)
            self._networks.append(network)
            self._probabilities.append(self._predicted(network))
        self._soup = cache(self._predicted_by_soup)

    def single(self) -> Mixture:
        """The best network."""
        best = self._best_first(range(len(self._members)))[0]
        return Mixture("single", {best: 1}, self._probabilities[best])

    def ensemble(self) -> Mixture:
        import numpy as np

        counts = select(np.stack(self._probabilities), self.labels)
        parts = [(count, self._probabilities[position]) for position, count in counts.items()]
        return Mixture("ensemble", counts, _mean(parts))

    def soups(self, alike: Sequence[int]) -> list[Mixture]:
        """The uniform and the greedy soup of networks of one architecture."""
        self._tell(f"soups of {', '.join(self._members[position].name for position in alike)}")
        order = self._best_first(alike)
        ingredients = {
            "greedy soup": greedy_soup(order, lambda some: rank(self._soup(some), self.labels)[0]),
            "uniform soup": tuple(order),
        }
        return [Mixture(kind, dict.fromkeys(some, 1), self._soup(some)) for kind, some in ingredients.items()]

    def kept(self, soups: Sequence[Mixture]) -> Mixture | None:
        """The best soup that does no worse than each of its ingredients; its weights are written."""
        from pipeline import models

        good = [
            soup
            for soup in soups
            if len(soup.counts) > 1
            and rank(soup.probabilities, self.labels)[0] >= max(self._rank(one)[0] for one in soup.counts)
        ]
        self._project.soup.unlink(missing_ok=True)  # another command's
        if not good:
            return None
        best = max(good, key=lambda soup: rank(soup.probabilities, self.labels))
        models.save(self._cooked(tuple(best.counts)), self._project.soup)
        return best

    def tested(self, mixtures: Mapping[str, Mixture]) -> "dict[str, dict[str, float | int]]":
        """The figures of the test set, for which each network predicts once."""
        from pipeline import evaluate

        @cache
        def predicted(model: "Model", weights: Path) -> "tuple[Floats, Ints]":
            self._tell(f"the test set by {weights.relative_to(self._project.root)}")
            return evaluate.probabilities_of(self._project, model, weights, self._settings)

        found = {}
        for name, mixture in mixtures.items():
            parts = [(count, *predicted(model, weights)) for count, model, weights in self._parts(mixture)]
            labels = parts[0][2]
            probabilities = _mean([(count, probabilities) for count, probabilities, _ in parts])
            found[name] = evaluate.score(probabilities, labels, self._settings.evaluate.calibration_bins)
        return found

    def described(self) -> list[dict[str, Any]]:
        """The members, as ensemble.json has them."""
        return [
            {
                "name": member.name,
                "trial": member.trial,
                "values": dict(member.values),
                "model": member.model.model_dump(mode="json"),
                "weights": str(member.weights.relative_to(self._project.home)),
                "validation": _figures(self._rank(position)),
            }
            for position, member in enumerate(self._members)
        ]

    def told(self, mixture: Mixture) -> dict[str, Any]:
        """A mixture, as ensemble.json has it."""
        return {
            "kind": mixture.kind,
            "members": {self._members[position].name: count for position, count in mixture.counts.items()},
            "validation": _figures(rank(mixture.probabilities, self.labels)),
        }

    def _rank(self, position: int) -> tuple[float, float]:
        return rank(self._probabilities[position], self.labels)

    def _best_first(self, positions: Sequence[int]) -> list[int]:
        return sorted(positions, key=self._rank, reverse=True)

    def _predicted(self, network: "Classifier") -> "Floats":
        from pipeline import evaluate

        return evaluate.predict(network, self._validation, self._device)

    def _cooked(self, positions: tuple[int, ...]) -> "Classifier":
        from pipeline import soup

        return soup.cooked([self._networks[position] for position in positions], self._statistics, self._device)

    def _predicted_by_soup(self, positions: tuple[int, ...]) -> "Floats":
        return self._predicted(self._cooked(positions)) if len(positions) > 1 else self._probabilities[positions[0]]

    def _parts(self, mixture: Mixture) -> "Iterator[tuple[int, Model, Path]]":
        """The networks that predict for a mixture, each with its weight in their mean."""
        members = [(count, self._members[position]) for position, count in mixture.counts.items()]
        if mixture.kind.endswith("soup"):
            yield 1, members[0][1].model, self._project.soup
        else:
            yield from ((count, member.model, member.weights) for count, member in members)


def _members(study: "Study", wish: Wish, console: "Console") -> "list[Trained]":
    """The networks that are to be put together, the best one first."""
    from pipeline.errors import PipelineError

    there = [*study.trials, *(study.confirmed if wish.confirmed else ())]
    there = sorted((one for one in there if one.trial not in wish.without), key=lambda one: -one.accuracy)
    if there and not any(one.weights.exists() for one in there):
        raise PipelineError(
            f"None of the weights that the study {study.name} trained are left in {there[0].weights.parents[1]}: "
            "search again under another --study of `python -m pipeline.tune`."
        )
    members = there[: wish.top]
    if len(members) < 2:
        raise PipelineError(
            f"The study {study.name} has {len(members) or 'no'} finished network to put together, and it takes two: "
            f"`python -m pipeline.tune --study {study.name}` with a larger --trials or tune.budget finishes more."
        )
    if len(members) < wish.top:
        there_is = f"{len(members)} finished networks"
        console.print(f"The study {study.name} has {there_is}, not the {wish.top} asked for.", highlight=False)
    return members


def _network(member: "Trained", meta: "Meta") -> "Classifier":
    """The network of a member. Raises PipelineError where its weights are missing or don't fit."""
    from pipeline import evaluate
    from pipeline.errors import PipelineError

    way_out = f"`--without {member.trial}` goes on without trial {member.trial}"
    if not member.weights.exists():
        raise PipelineError(f"{member.weights}, the weights of {member.name}, is missing: {way_out}.")
    try:
        return evaluate.network_of(member.model, member.weights, meta)
    except PipelineError as error:
        described = ", ".join(f"{key} {value}" for key, value in member.model.model_dump().items())
        raise PipelineError(
            f"{member.weights} does not hold the network of {member.name} ({described}): {way_out}."
        ) from error


def _mean(parts: "Sequence[tuple[int, Floats]]") -> "Floats":
    """The mean of probabilities, each with its weight."""
    import numpy as np

    counts = [count for count, _ in parts]
    mean: Floats = np.average([probabilities for _, probabilities in parts], axis=0, weights=counts)
    return mean


def _figures(found: tuple[float, float]) -> dict[str, float]:
    return {"accuracy": found[0], "nll": -found[1]}


def _track(project: "Project", study: "Study", wish: Wish, content: Mapping[str, Any]) -> None:
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
        with run.together():
            run.log_params(
                {
                    "ensemble.study": study.name,
                    "ensemble.top": wish.top,
                    "ensemble.confirmed": wish.confirmed,
                    "ensemble.without": ", ".join(map(str, sorted(wish.without))) or None,
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
        f"Chosen on {content['validation_pictures']:,} validation pictures, scored on {content['test_pictures']:,} "
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
    wish = Wish(arguments.study, arguments.top, arguments.confirmed, frozenset(arguments.without))
    content = ensemble(Project.here(), wish, console)
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
