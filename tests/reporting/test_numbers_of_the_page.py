"""What the page computes: intervals, certainty, slices, the order of the classes, what comes from git, comparisons."""

import csv
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_results import CIFAR, Page, page_of, predictions, write_beside, write_csv, write_results
from scipy.stats import binomtest

from pipeline import report
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.reporting import before, certainty, class_order, comparison, results, slices, statistics
from pipeline.reporting import page as pages
from pipeline.reporting.certainty import Predictions


@pytest.mark.parametrize(("right", "total"), [(0, 5), (5, 5), (98, 100), (9012, 10_000)])
def test_the_interval_is_that_of_scipy(right: int, total: int) -> None:
    expected = binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert statistics.wilson(right, total) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert statistics.wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 5), (3, 12), (0, 20), (400, 470), (1500, 1500)])
def test_mcnemars_test_is_the_exact_one(first: int, second: int) -> None:
    expected = binomtest(min(first, second), first + second).pvalue if first + second else 1.0
    assert statistics.mcnemar(first, second) == pytest.approx(expected, rel=1e-6)


def test_reliability_and_coverage_add_up() -> None:
    found = predictions()
    bins = certainty.reliability(found)
    assert sum(one["count"] for one in bins) == 2000
    assert all(one["low"] <= one["accuracy"] <= one["high"] for one in bins)
    points = certainty.coverage(found)
    assert points[-1]["coverage"] == 1
    assert points[-1]["accuracy"] == pytest.approx(found.right.mean(), abs=1e-5)
    assert len(points) <= certainty.MOST_POINTS
    assert certainty.share_at(found, 2.0) is None


def test_equal_confidences_are_one_point_of_the_coverage() -> None:
    found = Predictions(np.zeros(4, int), np.array([0, 1, 0, 0]), np.array([0.9, 0.9, 0.9, 0.5]))
    assert certainty.coverage(found) == [
        {"coverage": 0.75, "accuracy": 0.66667, "threshold": 0.9},
        {"coverage": 1.0, "accuracy": 0.75, "threshold": 0.5},
    ]


def test_confused_classes_stand_together() -> None:
    counts = np.diag([100] * 6)
    for one, other in ((0, 3), (3, 5), (1, 4)):
        counts[one, other] = counts[other, one] = 30
    order = class_order.together(counts)
    assert sorted(order) == list(range(6))
    places = {number: place for place, number in enumerate(order)}
    for one, other in ((0, 3), (3, 5), (1, 4)):
        assert abs(places[one] - places[other]) == 1


@pytest.mark.parametrize("classes", [1, 2, 300])
def test_any_number_of_classes_has_an_order(classes: int) -> None:
    assert sorted(class_order.together(np.eye(classes, dtype=np.int64))) == list(range(classes))


def test_a_slice_that_is_worse_by_more_than_chance_is_found() -> None:
    random = np.random.default_rng(0)
    dark = random.uniform(0, 255, 5000)
    right = random.random(5000) < np.where(dark < 51, 0.7, 0.9)
    found = slices.slices({"brightness": dark, "contrast": random.random(5000), "sharpness": np.ones(5000)}, right)
    assert list(found) == ["brightness", "contrast"]
    [(place, worst)] = slices.weak(found, float(right.mean()))
    assert (place, worst.name) == (1, "brightness")
    assert worst.high == pytest.approx(51, abs=4)
    assert math.isclose(sum(group.images for group in found["brightness"]), 5000)


def test_the_page_shows_certainty_and_slices_where_the_files_are_there(tmp_path: Path) -> None:
    project = write_results(tmp_path)
    text = page_of(project).text
    assert "predictions.csv is not here" in text
    assert "suspects.npz is not here" in text
    write_beside(project)
    project.suspects.write_bytes(project.mistakes.read_bytes())
    page = page_of(project)
    shown = {div["data-picture"] for div in page.all("div") if "data-picture" in div}
    assert shown >= {"reliability", "coverage", "slices"}
    assert "is not here" not in page.text
    assert "Accuracy is lowest on fifth 1 of 5 by brightness" in page.text
    assert "of the mistakes above are among them" in page.text


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("predictions", "airplane", "plane", "'plane' is not a class of the data set"),
        ("predictions", "\n9999,", "\n9999,x,", "is damaged"),
        ("appearance", "brightness", "light", "column brightness"),
    ],
)
def test_damage_in_what_the_page_could_do_without_is_named(
    tmp_path: Path, name: str, old: str, new: str, reason: str
) -> None:
    project = write_results(tmp_path)
    write_beside(project)
    path: Path = getattr(project, name)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(PipelineError, match=reason):
        results.read(project)


def test_predictions_of_another_number_of_images_are_refused(tmp_path: Path) -> None:
    project = write_results(tmp_path)
    write_beside(project, count=500)
    with pytest.raises(PipelineError, match="it has 500 rows for 10000 test images"):
        results.read(project)


def test_a_comparison_counts_the_images_that_flipped() -> None:
    then = predictions(1000)
    gained = np.flatnonzero(~then.right)[:50]
    now = replace(then, predicted=then.predicted.copy())
    now.predicted[gained] = then.actual[gained]
    found = comparison.compare("HEAD~1", then, now, CIFAR)
    assert (found.gained, found.lost) == (50, 0)
    assert found.verdict().startswith("This result is better by 5.00 percentage points, and that is more than chance")
    assert {one.index for one in found.flipped} == set(gained)
    assert all(one.is_gained for one in found.flipped)
    assert "HEAD~1 is better" in comparison.compare("HEAD~1", now, then, CIFAR).verdict()
    assert comparison.compare("x", then, then, CIFAR).verdict().startswith("Neither is better")
    with pytest.raises(PipelineError, match="x was evaluated on other test images"):
        comparison.compare("x", predictions(999), then, CIFAR)


def test_a_comparison_names_the_values_that_differ() -> None:
    then = comparison.values_of(b'{"values": {"train.seed": 0, "train.epochs": 5, "gone": 1}}')
    assert comparison.changes(then, {"train.seed": 0, "train.epochs": 9}) == [("train.epochs", 5, 9), ("gone", 1, None)]
    for content in (None, b"", b"[]", b'{"values": 3}'):
        assert comparison.changes(comparison.values_of(content), {"train.seed": 0}) is None


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one commit, and other figures on disk."""
    project = write_results(tmp_path, metrics={"accuracy": 0.8, "accuracy_low": 0.79, "accuracy_high": 0.81})
    write_beside(project)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "The first <result>")
    project.metrics.write_text(project.metrics.read_text().replace('"accuracy": 0.8,', '"accuracy": 0.9,'))
    monkeypatch.chdir(tmp_path)
    return project


def test_the_last_commit_with_other_figures_stands_beside_the_result(repository: Project) -> None:
    found = before.previous(repository)
    assert found is not None
    assert found.metrics.evaluate.accuracy == 0.8
    page = pages.page(results.read(repository), pages.beside(repository, {}))
    assert "10.00 percentage points more than" in page
    assert "(The first &lt;result&gt;), which reached 80.00" in page
    git(repository.root, "commit", "--all", "--quiet", "--message", "The second")
    again = before.previous(repository)
    assert again is not None
    assert again.commit == found.commit


def test_without_git_there_is_nothing_before(tmp_path: Path) -> None:
    assert before.previous(write_results(tmp_path)) is None


def test_flipped_images_are_the_kept_mistakes_of_the_result_that_got_them_wrong() -> None:
    then, now = predictions(1000), predictions(1000, seed=1)
    now = replace(now, actual=then.actual)
    found = comparison.compare("HEAD~1", then, now, CIFAR)
    gained = [place for place, one in found.all_flipped.items() if one.is_gained]
    lost = [place for place, one in found.all_flipped.items() if not one.is_gained]

    def mistake(place: int, confidence: float) -> results.Mistake:
        return results.Mistake(np.full((4, 4, 3), place % 256, np.uint8), place, "cat", "dog", confidence)

    of_then = [mistake(place, 0.5 + place / 4000) for place in (*gained[:40], *lost[:3])]
    with_images = comparison.with_images(found, of_then, [mistake(lost[0], 0.9), mistake(gained[0], 0.8)])
    assert with_images.images_gained is not None
    shown = [image.flipped.index for image in with_images.images_gained]
    assert shown == sorted(gained[:40], reverse=True)[: comparison.MOST_IMAGES], "the surest first"
    assert all(image.flipped.is_gained for image in with_images.images_gained)
    assert [image.flipped.index for image in with_images.images_lost] == [lost[0]]
    assert comparison.with_images(found, None, []).images_gained is None


def test_a_file_that_git_lacks_comes_from_dvcs_cache(repository: Project) -> None:
    root = repository.root
    digest = "0123456789abcdef0123456789abcdef"
    name = "results/evaluate/predictions.csv"
    git(root, "rm", "--cached", "--quiet", name)
    lock = f"stages:\n  evaluate:\n    outs:\n    - path: {name}\n      hash: md5\n      md5: {digest}\n      size: 3\n"
    (root / "dvc.lock").write_text(lock)
    git(root, "add", "dvc.lock")
    git(root, "commit", "--quiet", "--message", "As DVC does it")
    assert before.file_at(repository, "HEAD", name) is None
    cached = root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(repository.predictions.read_bytes())
    assert before.file_at(repository, "HEAD", name) == repository.predictions.read_bytes()
    assert before.file_at(repository, "HEAD~1", name) == repository.predictions.read_bytes()


def get_all_wrong(project: Project) -> None:
    """Predictions of another class than the actual one for each test image."""
    with project.predictions.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    following = dict(zip(CIFAR, (*CIFAR[1:], CIFAR[0]), strict=True))
    write_csv(project.predictions, [row | {"predicted": following[row["actual"]]} for row in rows])


def test_compare_puts_a_commit_or_a_folder_beside_the_result(
    repository: Project, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["--compare", "HEAD"]) == 0
    assert "Neither is better" in capsys.readouterr().out
    assert "No value differs." in repository.comparison_page.read_text(encoding="utf-8")
    assert "How do they look?" not in repository.comparison_page.read_text(encoding="utf-8")
    assert "Which of two results is better?" in repository.comparison_page.read_text(encoding="utf-8")
    other = write_results(tmp_path_factory.mktemp("other"))
    write_beside(other)
    get_all_wrong(other)
    assert report.main(["--compare", str(other.root)]) == 0
    page = Page(other_page := repository.comparison_page.read_text(encoding="utf-8"))
    assert "How do they look?" in page.text
    shown = [image for image in page.all("img") if f"{other.root} said" in image["alt"]]
    assert 0 < len(shown) <= 48
    assert len(other_page) < 1_000_000
    other.mistakes.unlink()
    assert report.main(["--compare", str(other.root)]) == 0
    page = Page(repository.comparison_page.read_text(encoding="utf-8"))
    assert f"results/evaluate/mistakes.npz of {other.root} is not here" in page.text
    assert report.main(["--compare", "no-such-commit"]) == 1
    assert "--compare must name a commit or the folder of a project with results" in capsys.readouterr().err
    repository.predictions.unlink()
    assert report.main(["--compare", "HEAD"]) == 1
    assert "predictions.csv is missing" in capsys.readouterr().err
