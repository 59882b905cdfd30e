import numpy as np
import pytest

from pipeline.evaluation import metrics

CERTAIN = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
LABELS = np.array([0, 1, 1, 1])


def test_accuracy_macro_f1_and_nll_are_those_worked_out_by_hand() -> None:
    scores = metrics.score(CERTAIN, LABELS, bins=10)
    assert scores.accuracy == 0.75
    # Class 0: precision 1/2, recall 1; class 1: precision 1, recall 2/3.
    assert scores.macro_f1 == pytest.approx((2 / 3 + 0.8) / 2)
    assert scores.nll == pytest.approx(-np.log([0.9, 0.2, 0.7, 0.55]).mean(), rel=1e-6)


def test_the_interval_is_wilsons() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662.
    labels = np.zeros(263, np.int64)
    probabilities = np.zeros((263, 2))
    probabilities[:81, 0], probabilities[81:, 1] = 1, 1
    scores = metrics.score(np.clip(probabilities, 0.01, 0.99), labels, bins=10)
    assert (round(scores.accuracy_low, 4), round(scores.accuracy_high, 4)) == (0.2553, 0.3662)


def test_the_calibration_error_is_the_mean_gap_of_confidence_and_accuracy_over_bins() -> None:
    # Two bins: (0.5, 1] holds all four. Their confidence is 0.7375 on average, their accuracy 0.75.
    assert metrics.expected_calibration_error(CERTAIN, LABELS, 2) == pytest.approx(0.0125, abs=1e-6)
    # Ten bins hold one each but for 0.9 and 0.8, each closing its own: every gap counts by itself.
    gaps = [1 - 0.9, 0.8, 1 - 0.7, 1 - 0.55]
    assert metrics.expected_calibration_error(CERTAIN, LABELS, 10) == pytest.approx(np.mean(gaps), abs=1e-6)


def test_top_5_accuracy_is_there_for_more_than_five_classes_alone() -> None:
    probabilities = np.tile(np.linspace(0.1, 0.3, 6), (6, 1))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert metrics.score(probabilities, np.arange(6), 10).top5_accuracy == pytest.approx(5 / 6)
    assert metrics.score(CERTAIN, LABELS, 10).top5_accuracy is None


def test_a_class_that_is_never_predicted_and_one_that_never_occurs_count_as_zero() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1]])
    table = metrics.per_class(probabilities, np.array([0, 1]), ("a", "b", "c"))
    assert table["class"] == ["a", "b", "c"]
    assert table["support"] == [1, 1, 0]
    assert table["f1"] == pytest.approx([2 / 3, 0, 0])
    assert metrics.confusion_matrix(probabilities, np.array([0, 1])).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_the_support_is_a_count_though_no_prediction_is_right() -> None:
    table = metrics.per_class(np.array([[0.1, 0.9], [0.9, 0.1]]), np.array([0, 1]), ("a", "b"))
    assert table["support"] == [1, 1]
    assert all(type(count) is int for count in table["support"])
    assert table["f1"] == [0.0, 0.0]


def test_a_temperature_changes_probabilities_as_it_changes_their_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3)) * 4
    probabilities, halved = (np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in (logits, logits / 2))
    np.testing.assert_allclose(metrics.with_temperature(probabilities, 2), halved)
    np.testing.assert_allclose(metrics.with_temperature(halved, 0.5), probabilities)
    certain = np.array([[1.0, 0.0]])
    np.testing.assert_allclose(metrics.with_temperature(certain, 3.0), certain, atol=1e-30)
