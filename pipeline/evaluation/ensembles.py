"""What networks become together: ensembles, the mean of their probabilities, and soups, that of their weights."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import networks
from pipeline.batches import splits
from pipeline.batches.batches import OrderedBatches
from pipeline.batches.images import load_images
from pipeline.batches.loaders import Streamed
from pipeline.config import Config, Model, Scalar, Train
from pipeline.errors import PipelineError
from pipeline.evaluation import inference, metrics, soup, test_set
from pipeline.evaluation.metrics import Floats, Ints
from pipeline.files import Project
from pipeline.networks import Classifier
from pipeline.records import Meta, Scores
from pipeline.training import loop
from pipeline.training.failures import memory_errors

ROUNDS = 25
"""Networks, counted as often as they were chosen, that a selection looks at."""
STATISTICS_IMAGES = 5_000
"""Training images that the batch norms of a soup are measured on: thousands of values a channel for each of them."""


@dataclass(frozen=True)
class Member:
    """A network that was trained to its end."""

    name: str
    """Of its run in MLflow: trial 3, confirm 0."""
    trial: int
    """The trial that has its values; a network of the confirmation has those of the trial that it repeats."""
    values: Mapping[str, Scalar]
    """Of the searched keys."""
    model: Model
    weights: Path
    """The file that networks.save wrote. It may have been deleted since."""
    accuracy: float
    """On the validation part, as the search has it."""


@dataclass(frozen=True)
class Mixture:
    """Networks that predict together."""

    kind: str
    """single, ensemble, greedy soup or uniform soup."""
    counts: Mapping[int, int]
    """How often each takes part, by its position among the members."""
    probabilities: Floats
    """[N, classes], of the validation part."""


def select(probabilities: Floats, labels: Ints, rounds: int = ROUNDS) -> dict[int, int]:
    """The ensemble that greedy selection finds: how often each of M networks takes part, by position.

    `probabilities` are [M, N, classes]. The selection starts from the best network. In each of `rounds` rounds it adds
    the network that improves the ensemble most or harms it least; a network can be added several times. The best of
    the ensembles met is returned, of equal ones the smallest (Caruana et al. 2004, sections 2.1 and 2.2).
    """
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
    """The members of the greedy soup of networks in `order`, the best one first (Wortsman et al. 2022, recipe 1).

    Networks are added one by one. Each stays if the accuracy of the soup, by `accuracy_of`, does not fall.
    """
    kept = tuple(order[:1])
    accuracy = accuracy_of(kept)
    for one in order[1:]:
        tried = accuracy_of((*kept, one))
        if tried >= accuracy:
            kept, accuracy = (*kept, one), tried
    return kept


def groups(networks: Sequence[Model]) -> list[list[int]]:
    """Positions of networks of the same architecture, where there are two or more. Dropout has no weights."""
    found: dict[tuple[tuple[str, Scalar], ...], list[int]] = {}
    for position, model in enumerate(networks):
        architecture = tuple((key, value) for key, value in model.in_use().items() if key != "dropout")
        found.setdefault(architecture, []).append(position)
    return [alike for alike in found.values() if len(alike) > 1]


def rank(probabilities: Floats, labels: Ints) -> tuple[float, float]:
    """The accuracy, then the mean log likelihood, which separates networks of equal accuracy. Higher is better.

    The likelihood is rounded to nine digits, so that the mean of equal probabilities does not differ from each of them.
    """
    likelihoods = np.take_along_axis(probabilities, labels[:, None], axis=1)
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    return accuracy, round(float(np.log(np.maximum(likelihoods, np.finfo(np.float64).tiny)).mean()), 9)


class Combiner:
    """The members' networks with their predictions for the validation part, and the mixtures made of them."""

    def __init__(
        self,
        project: Project,
        settings: Config,
        meta: Meta,
        train: Train,
        members: Sequence[Member],
        announce: Callable[[str], None],
    ) -> None:
        """`train` says which images validate.

        Raises ConfigError, DataError and OutOfMemory; PipelineError where weights don't fit.
        """
        self._project, self._settings, self._members, self._announce = project, settings, members, announce
        images = load_images(project.training_data, meta)
        trained_on, held_out = splits.held_out(images, train, meta.classes)
        self.labels = images.labels[held_out]
        self._device = inference.prepared_device(settings)
        size = settings.evaluate.batch_size
        # Of the training set these are few, and each network sees them once.
        loader = Streamed(images, self._device.handle)
        self._validation = OrderedBatches(loader, held_out, batch_size=size)
        # In whole batches, as each counts alike, and mixed, as a batch of one class is like no other.
        drawn = np.random.default_rng(0).permutation(trained_on)[:STATISTICS_IMAGES]
        whole = len(drawn) - len(drawn) % size or len(drawn)
        self._statistics = OrderedBatches(loader, drawn[:whole], batch_size=size)
        self._networks: list[Classifier] = []
        self._probabilities: list[Floats] = []
        for number, member in enumerate(members, start=1):
            announce(f"the validation part by {member.name} ({number} of {len(members)})")
            network = _network(member, meta)
            with self._memory_errors():
                loop.place(network, self._device)
            self._networks.append(network)
            self._probabilities.append(self._predicted(network))
        self._soup = cache(self._predicted_by_soup)

    def single(self) -> Mixture:
        """The best network."""
        best = self._best_first(range(len(self._members)))[0]
        return Mixture("single", {best: 1}, self._probabilities[best])

    def ensemble(self) -> Mixture:
        counts = select(np.stack(self._probabilities), self.labels)
        parts = [(count, self._probabilities[position]) for position, count in counts.items()]
        return Mixture("ensemble", counts, _mean(parts))

    def soups(self, alike: Sequence[int]) -> list[Mixture]:
        """The uniform and the greedy soup of networks of one architecture."""
        self._announce(f"soups of {', '.join(self._members[position].name for position in alike)}")
        order = self._best_first(alike)
        ingredients = {
            "greedy soup": greedy_soup(order, lambda some: rank(self._soup(some), self.labels)[0]),
            "uniform soup": tuple(order),
        }
        return [Mixture(kind, dict.fromkeys(some, 1), self._soup(some)) for kind, some in ingredients.items()]

    def best_soup(self, soups: Sequence[Mixture]) -> Mixture | None:
        """The best soup that does no worse than each of its ingredients; its weights are written."""
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
        networks.save(self._recalibrated(tuple(best.counts)), self._project.soup)
        return best

    def score_on_test_set(self, mixtures: Mapping[str, Mixture]) -> dict[str, Scores]:
        """The figures of the test set, for which each network predicts once."""

        @cache
        def predicted(model: Model, weights: Path) -> tuple[Floats, Ints]:
            self._announce(f"the test set by {weights.relative_to(self._project.root)}")
            return test_set.predict_test_set(self._project, model, weights, self._settings)

        found = {}
        for name, mixture in mixtures.items():
            parts = [(count, *predicted(model, weights)) for count, model, weights in self._parts(mixture)]
            labels = parts[0][2]
            probabilities = _mean([(count, probabilities) for count, probabilities, _ in parts])
            found[name] = metrics.score(probabilities, labels, self._settings.evaluate.calibration_bins)
        return found

    def members_as_json(self) -> list[dict[str, Any]]:
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

    def as_json(self, mixture: Mixture) -> dict[str, Any]:
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

    def _predicted(self, network: Classifier) -> Floats:
        with self._memory_errors():
            return inference.predict(network, self._validation, self._device)

    def _memory_errors(self) -> AbstractContextManager[None]:
        return memory_errors(self._device, self._settings.evaluate.batch_size, "evaluate.batch_size")

    def _recalibrated(self, positions: tuple[int, ...]) -> Classifier:
        chosen = [self._networks[position] for position in positions]
        with self._memory_errors():
            return soup.recalibrate_batch_norm(chosen, self._statistics, self._device)

    def _predicted_by_soup(self, positions: tuple[int, ...]) -> Floats:
        return (
            self._predicted(self._recalibrated(positions)) if len(positions) > 1 else self._probabilities[positions[0]]
        )

    def _parts(self, mixture: Mixture) -> Iterator[tuple[int, Model, Path]]:
        """The networks that predict for a mixture, each with its weight in their mean."""
        members = [(count, self._members[position]) for position, count in mixture.counts.items()]
        if mixture.kind.endswith("soup"):
            yield 1, members[0][1].model, self._project.soup
        else:
            yield from ((count, member.model, member.weights) for count, member in members)


def _network(member: Member, meta: Meta) -> Classifier:
    """The network of a member. Raises PipelineError where its weights are missing or don't fit."""
    way_out = f"`--without {member.trial}` leaves trial {member.trial} out"
    if not member.weights.exists():
        raise PipelineError(f"{member.weights}, the weights of {member.name}, is missing: {way_out}.")
    try:
        return inference.load_network(member.model, member.weights, meta)
    except PipelineError as error:
        described = ", ".join(f"{key} {value}" for key, value in member.model.in_use().items())
        raise PipelineError(
            f"{member.weights} does not hold the network of {member.name} ({described}): {way_out}."
        ) from error


def _mean(parts: Sequence[tuple[int, Floats]]) -> Floats:
    """The mean of probabilities, each with its weight."""
    counts = [count for count, _ in parts]
    mean: Floats = np.average([probabilities for _, probabilities in parts], axis=0, weights=counts)
    return mean


def _figures(found: tuple[float, float]) -> dict[str, float]:
    return {"accuracy": found[0], "nll": -found[1]}
