import numpy as np

from pipeline.config import Config
from pipeline.evaluation import ensembles

LABELS = np.array([0, 1, 0, 1])


def sure(*ones: float) -> np.ndarray:
    """Probabilities [N, 2] from those of class 1."""
    return np.array([[1 - one, one] for one in ones])


def test_two_networks_that_err_on_different_images_do_better_together_than_either() -> None:
    first, second = sure(0.1, 0.9, 0.1, 0.45), sure(0.55, 0.9, 0.1, 0.9)
    stupid = sure(0.9, 0.1, 0.9, 0.1)
    assert [ensembles.rank(each, LABELS)[0] for each in (first, second, stupid)] == [0.75, 0.75, 0]
    counts = ensembles.select(np.stack([stupid, first, second]), LABELS)
    assert set(counts) == {1, 2}
    total = sum(count * (first if position == 1 else second) for position, count in counts.items())
    assert ensembles.rank(total / sum(counts.values()), LABELS)[0] == 1


def test_a_network_that_no_other_helps_stays_alone() -> None:
    good, bad = sure(0.01, 0.99, 0.01, 0.99), sure(0.4, 0.6, 0.4, 0.6)
    assert ensembles.select(np.stack([bad, good]), LABELS) == {1: 1}
    assert ensembles.select(np.stack([good, good]), LABELS) == {0: 1}  # and one of two equal ones too


def test_a_network_can_take_part_more_often_than_another() -> None:
    # The second alone knows the last image, the first is surer of all others: two to one is the best of both.
    first, second = sure(0.1, 0.9, 0.1, 0.4), sure(0.65, 0.4, 0.65, 0.75)
    counts = ensembles.select(np.stack([first, second]), LABELS)
    assert counts[0] > counts[1] >= 1


def test_of_equal_accuracies_the_likelier_labels_decide() -> None:
    assert ensembles.rank(sure(0.1, 0.9, 0.1, 0.9), LABELS) > ensembles.rank(sure(0.3, 0.7, 0.3, 0.7), LABELS)
    assert ensembles.rank(sure(0.0, 0.0, 0.0, 1.0), LABELS)[1] > -np.inf  # an impossible label counts as very unlikely


def test_the_greedy_soup_keeps_what_does_not_lower_the_accuracy() -> None:
    accuracies = {(4,): 0.8, (4, 1): 0.7, (4, 2): 0.8, (4, 2, 0): 0.79, (4, 2, 3): 0.9}
    asked: list[tuple[int, ...]] = []

    def accuracy_of(some: tuple[int, ...]) -> float:
        asked.append(some)
        return accuracies[some]

    assert ensembles.greedy_soup([4, 1, 2, 0, 3], accuracy_of) == (4, 2, 3)
    assert asked == list(accuracies)


def test_networks_of_one_architecture_are_a_group_whatever_their_dropout(settings: Config) -> None:
    small, large = settings.model, settings.model.model_copy(update={"width": 8})
    dropping = small.model_copy(update={"dropout": 0.5})
    plain = small.model_copy(update={"family": "plain"})
    assert ensembles.groups([small, large, dropping, plain, large]) == [[0, 2], [1, 4]]
    assert ensembles.groups([small, large]) == []
