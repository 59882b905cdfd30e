import base64
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from deliveries import deliver
from made_results import ALONE, CIFAR, Page, confusion_of, data_in, page_of, write_grid, write_results
from PIL import Image

from pipeline import report
from pipeline.errors import PipelineError
from pipeline.files import Project
from pipeline.reporting import page as pages
from pipeline.reporting import plots, results


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with its report, drawings included."""
    project = write_results(tmp_path_factory.mktemp("written"))
    pages.write(project, results.read(project), ALONE)
    return project


@pytest.fixture(scope="module")
def page(written: Project) -> Page:
    return Page(written.page.read_text(encoding="utf-8"))


def test_the_headline_gives_the_accuracy_and_its_interval_in_words(tmp_path: Path) -> None:
    figures = {"accuracy": 0.9012, "accuracy_low": 0.8952, "accuracy_high": 0.9069}
    text = page_of(write_results(tmp_path, metrics=figures)).text
    assert "90.1 % of 10,000 test images are recognised; 95 % interval 89.5 to 90.7 %." in text


def test_a_nearly_perfect_accuracy_is_not_rounded_to_a_perfect_one(tmp_path: Path) -> None:
    figures = {"accuracy": 0.9997, "accuracy_low": 0.9991, "accuracy_high": 0.9999}
    text = page_of(write_results(tmp_path, metrics=figures)).text
    assert "99.97 % of 10,000 test images are recognised; 95 % interval 99.91 to 99.99 %." in text


def test_the_result_table_has_each_figure(page: Page) -> None:
    for figure in (
        "Top-5 accuracy 99.7 %",
        "NLL 0.312",
        "ECE 2.1 %",
        "Parameters 0.27 M Numbers that training sets: 269,722.",
        "MACs 41 M",
        "Prediction speed 3,120 images/s",
        "Always naming the most frequent class would reach 10.0 %.",
    ):
        assert figure in page.text


def test_figures_of_few_classes_have_no_top_5(tmp_path: Path) -> None:
    page = page_of(write_results(tmp_path, ("no", "yes"), mistakes=2))
    assert "Top-5" not in page.text
    assert "Macro F1" in page.text


def test_test_time_augmentation_is_named_as_such_and_leaves_the_headline_alone(tmp_path: Path) -> None:
    flip = {
        "accuracy": 0.9123,
        "accuracy_low": 0.9066,
        "accuracy_high": 0.9177,
        "nll": 0.3,
        "macro_f1": 0.9,
        "ece": 0.02,
    }
    text = page_of(write_results(tmp_path, metrics={"accuracy": 0.9012, "tta_flip": flip})).text  # type: ignore[dict-item]
    assert "90.1 % of 10,000 test images are recognised" in text
    assert "Accuracy with test-time augmentation 91.2 % Mean of the predictions for an image and for its mirror" in text
    assert "95 % interval 90.7 to 91.8 %" in text


def test_a_cross_validation_gives_its_mean_and_standard_deviation(tmp_path: Path, page: Page) -> None:
    project = write_results(tmp_path)
    metrics = json.loads(project.metrics.read_text())
    folds = {"count": 5, "validation_accuracy_mean": 0.8934, "validation_accuracy_sd": 0.0042}
    metrics["train"]["folds"] = folds
    project.metrics.write_text(json.dumps(metrics))
    text = page_of(project).text
    assert "Cross-validation 89.3 ± 0.4 % Mean and standard deviation of the validation accuracy of 5 networks" in text
    assert "Cross-validation" not in page.text
    folds["validation_accuracy_sd"] = None  # type: ignore[assignment]
    project.metrics.write_text(json.dumps(metrics))
    with pytest.raises(PipelineError, match=r"train\.folds\.validation_accuracy_sd: Input should be a valid number"):
        results.read(project)


def test_without_grids_the_page_has_no_place_for_them(page: Page) -> None:
    assert "grids" not in page.text.lower()
    assert "grids" not in [section.get("id") for section in page.all("section")]


def test_a_grid_is_shown_with_its_table_and_its_figure(tmp_path: Path) -> None:
    project = write_results(tmp_path)
    write_grid(project)
    write_grid(project, "width", figure=False)
    pages.write(project, results.read(project), ALONE)
    shown = Page(project.page.read_text(encoding="utf-8"))
    assert "vgg16 20 15 M 313 M 20 5.12 % 7.31 % 7.52 % 12 min 34 s" in shown.text
    assert "speed 8 0 diverged" in shown.text
    assert shown.text.count("Training error Validation error Test error") == 2
    assert "grids" in [heading.get("id") for heading in shown.all("h3")]
    (figure,) = (image for image in shown.all("img") if "grid depth" in image["alt"])
    assert data_of(figure) == project.grid_figure("depth").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("0.0752", "low", "could not convert"),
        ("test_error", "error", "column test_error"),
        ("0.0752,754.2,1200.0,", "0.0752", "values of the column elapsed_s"),
    ],
)
def test_a_damaged_table_of_a_grid_is_named_with_what_to_do(tmp_path: Path, old: str, new: str, reason: str) -> None:
    project = write_results(tmp_path)
    table = write_grid(project)
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(PipelineError, match=r"is damaged .*: run `python -m pipeline.study depth`") as error:
        results.read(project)
    assert str(table) in str(error.value)
    assert reason in str(error.value)


def test_the_page_holds_all_it_shows(page: Page) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\((?!#)", page.html), "but what the page itself has"
    assert "@import" not in page.html


def test_only_the_pages_own_script_may_run_and_nothing_may_be_fetched(page: Page) -> None:
    data, script = page.all("script")
    assert data == {"type": "application/json", "id": "data"}
    assert script == {}
    source = page.html.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    [policy] = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy


def test_five_questions_lead_through_the_page(page: Page) -> None:
    assert [link["href"] for link in page.all("a")] == ["#good", "#fails", "#training", "#search", "#trust"]
    assert [section["id"] for section in page.all("section")] == ["good", "fails", "training", "search", "trust"]


def test_every_picture_has_a_question_above_it_and_its_words(page: Page) -> None:
    plots_ = [div for div in page.all("div") if "data-picture" in div]
    assert {div["data-picture"] for div in plots_} >= {"before", "confusion", "accuracy", "loss", "learning_rate"}
    assert all(len(div["data-alt"]) > 20 for div in plots_)


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in zip([0, *levels], levels, strict=False))
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    targets = {attributes.get("id") for _, attributes in page.elements}
    assert {link["href"][1:] for link in page.all("a")} <= targets
    labelled = {attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes}
    assert labelled <= targets


def test_the_pictures_are_files_beside_the_page(written: Project, page: Page) -> None:
    assert sorted(path.name for path in written.report.iterdir()) == [
        "accuracies.png",
        "confusion_matrix.png",
        "index.html",
        "learning_curves.png",
        "training_speed.png",
    ]
    assert not [image for image in page.all("img") if "pixels" not in image.get("class", "")]


def test_the_same_results_give_the_same_bytes_whatever_a_matplotlibrc_says(written: Project, tmp_path: Path) -> None:
    again = write_results(tmp_path)
    with matplotlib.rc_context({"lines.linewidth": 7, "font.size": 20, "savefig.dpi": 30, "text.usetex": True}):
        paths = pages.write(again, results.read(again), ALONE)
    for path in paths:
        assert path.read_bytes() == (written.report / path.name).read_bytes(), path.name


def test_names_of_classes_are_shown_as_they_are(tmp_path: Path) -> None:
    names = ("<b>bold</b>", r"$\frac$ & more", "actual", "a,b", 'quo"te', "猫")
    project = write_results(tmp_path, names, mistakes=40)
    page = Page(pages.write(project, results.read(project), ALONE)[0].read_text(encoding="utf-8"))
    for name in names:
        assert f"{name} →" in page.text
        assert any(f"actual class {name}, predicted" in image["alt"] for image in page.all("img"))
    assert not page.all("b")


def test_a_name_that_the_font_can_not_draw_is_drawn_as_a_number() -> None:
    counts = np.eye(2, dtype=np.int64)
    as_numbers = plots.confusion_matrix(counts, ["class 0", "class 1"])
    assert plots.confusion_matrix(counts, ["\U0010fff0", "\U0010fff1"]) == as_numbers
    assert plots.confusion_matrix(counts, ["cat", "dog"]) != as_numbers


def test_a_row_of_the_drawn_matrix_is_an_actual_class(tmp_path: Path) -> None:
    (tmp_path / "matrix.png").write_bytes(plots.confusion_matrix(np.array([[10, 0], [500, 0]]), ["cat", "dog"]))
    full = (pixels(tmp_path / "matrix.png") == (8, 48, 107)).all(axis=2)  # the colour of 100 %
    columns, rows = np.flatnonzero(full.sum(axis=0) > 50), np.flatnonzero(full.sum(axis=1) > 50)
    cell = 1.2 * plots.PIXELS_AN_INCH
    assert np.ptp(columns) == pytest.approx(cell, rel=0.05)
    assert np.ptp(rows) == pytest.approx(2 * cell, rel=0.05)


def test_short_names_stand_upright_and_long_ones_do_not_run_into_each_other(tmp_path: Path) -> None:
    heights = []
    for index, names in enumerate([["cat", "dog"], ["capercaillie", "black grouse"], ["c" * 20, "d" * 20]]):
        (tmp_path / f"{index}.png").write_bytes(plots.confusion_matrix(np.eye(2, dtype=np.int64), names))
        heights.append(pixels(tmp_path / f"{index}.png").shape[0])
    assert abs(heights[1] - heights[0]) < 8
    assert heights[2] > heights[0] + 100


@pytest.mark.parametrize(("number", "with_counts"), [(20, True), (21, False)])
def test_cells_hold_counts_for_up_to_20_classes(number: int, with_counts: bool) -> None:
    names = [f"{index}" for index in range(number)]
    one, other = (plots.confusion_matrix(count * np.eye(number, dtype=np.int64), names) for count in (10, 99))
    assert (one != other) == with_counts


def test_the_labels_of_100_classes_can_be_told_apart(tmp_path: Path) -> None:
    counts, names = confusion_of(100, 100), [f"class_{index}" for index in range(100)]
    (tmp_path / "matrix.png").write_bytes(plots.confusion_matrix(counts, names))
    height = pixels(tmp_path / "matrix.png").shape[0]
    assert 100 * 11 < height / 2 < 100 * 16  # CSS pixels; a line of text takes 9


def test_a_class_without_test_images_is_drawn_too() -> None:
    assert plots.confusion_matrix(np.array([[3, 1], [0, 0]]), ["cat", "dog"]).startswith(b"\x89PNG")


def test_one_epoch_is_drawn_as_points(tmp_path: Path) -> None:
    history = {name: [0.5] for name in results.COLUMNS} | {"epoch": [1]}
    (tmp_path / "curves.png").write_bytes(plots.learning_curves(history, ["learning_rate"]))
    assert (pixels(tmp_path / "curves.png") == (0, 158, 115)).all(axis=2).sum() > 20


def test_most_confused_pairs_are_named_in_words(tmp_path: Path) -> None:
    counts = np.array([[90, 9, 1], [30, 70, 0], [0, 0, 50]])
    project = write_results(tmp_path, ("cat", "dog", "<eel>"), confusion=counts, mistakes=3)
    text = page_of(project).text
    assert "dog cat 30 of 100 30.0 % cat dog 9 of 100 9.0 % cat <eel> 1 of 100 1.0 %" in text


def test_the_weakest_classes_come_first(tmp_path: Path) -> None:
    counts = np.array([[100, 0, 0], [0, 60, 40], [0, 20, 80]])
    page = page_of(write_results(tmp_path, ("good", "worst", "weak"), confusion=counts, mistakes=2))
    assert "worst 1 66.7 % 75.0 % 60.0 % 100 weak 2 72.7 % 66.7 % 80.0 % 100 good 0 100.0 %" in page.text
    bars = [span["style"] for span in page.all("span") if span.get("class") == "bar"]
    assert bars == ["--share: 66.7%", "--share: 72.7%", "--share: 100.0%"]
    assert [row.get("class") for row in page.all("tr")].count("weak") == 2


@pytest.mark.parametrize("number", [2, 100, 300])
def test_all_classes_are_in_the_table_and_in_the_matrix(tmp_path: Path, number: int) -> None:
    page = page_of(write_results(tmp_path, tuple(f"class {index}" for index in range(number)), mistakes=2))
    assert len([span for span in page.all("span") if span.get("class") == "bar"]) == number
    drawn = data_in(page)["confusion"]
    assert sorted(drawn["order"]) == list(range(number))
    assert sum(count for *_, count in drawn["cells"]) == sum(drawn["support"]) == 1000 * number
    assert len(page.html) < 2_000_000


def test_a_class_that_is_never_predicted_is_named(tmp_path: Path) -> None:
    counts = np.array([[90, 10, 0], [5, 95, 0], [40, 10, 0]])
    page = page_of(write_results(tmp_path, ("cat", "dog", "<eel>"), confusion=counts, mistakes=2))
    assert "Never predicted: <eel>." in page.text


def test_mistakes_are_shown_pixel_by_pixel_with_what_they_are(written: Project, page: Page) -> None:
    images = [image for image in page.all("img") if image.get("class") == "pixels"]
    with np.load(written.mistakes) as mistakes:
        assert len(images) == 24
        for number, image in enumerate(images):
            assert (np.asarray(decoded(image)) == mistakes["images"][number]).all()
            actual, predicted = CIFAR[mistakes["actual"][number]], CIFAR[mistakes["predicted"][number]]
            assert image["alt"] == (
                f"Test image {mistakes['index'][number]}: actual class {actual}, predicted {predicted}"
            )
        assert f"{actual} → {predicted} {100 * mistakes['confidence'][-1]:.1f} %" in page.text
    assert "The 24 of 546 wrong answers that the network was surest of" in page.text


@pytest.mark.parametrize(("side", "shown"), [(8, 8), (160, 160), (400, 160)])
def test_large_images_of_mistakes_are_made_smaller(tmp_path: Path, side: int, shown: int) -> None:
    page = page_of(write_results(tmp_path, side=side, channels=1, mistakes=1))
    [image] = [image for image in page.all("img") if "Test image" in image["alt"]]
    with decoded(image) as opened:
        assert opened.size == (shown, shown)
        assert opened.mode == "L"
    assert (image.get("class") == "pixels") == (side < 128)


def test_a_run_without_mistakes_says_so(tmp_path: Path) -> None:
    page = page_of(write_results(tmp_path, ("no", "yes"), confusion=np.diag([30, 70]), mistakes=0))
    assert "Not one of 100 test images was taken for another class." in page.text
    assert "The network made no mistake on 100 test images." in page.text


def test_mistakes_that_were_not_kept_are_not_denied(tmp_path: Path) -> None:
    text = page_of(write_results(tmp_path, mistakes=0)).text
    assert "The network made 546 mistakes; none was kept to be shown here" in text


def test_the_page_says_when_an_earlier_epoch_was_better(tmp_path: Path) -> None:
    text = page_of(write_results(tmp_path, epochs=4, validation_accuracy=[0.5, 0.9132, 0.7, 0.9087])).text
    assert "Validation accuracy was best after epoch 2 of 4 with 91.32 %." in text
    assert "the last epoch, which ended with 90.87 %" in text


def test_the_page_says_nothing_of_it_when_the_last_epoch_was_the_best(tmp_path: Path) -> None:
    text = page_of(write_results(tmp_path, epochs=3, validation_accuracy=[0.5, 0.91, 0.91])).text
    # 0.91 was reached before, but the last epoch is no worse.
    assert "was best after" not in text


@pytest.mark.parametrize(("validation", "told"), [(0.8, True), (0.92, False)])
def test_the_page_says_when_the_training_images_are_known_better_than_new_ones(
    tmp_path: Path, validation: float, told: bool
) -> None:
    text = page_of(write_results(tmp_path, validation_accuracy=[0.3] * 19 + [validation])).text
    assert ("percentage points above validation accuracy" in text) == told


def test_the_page_tells_how_it_was_made(page: Page) -> None:
    for fact in (
        "learning_rate 0.2",
        "weight_decay 0.0005",
        "url null",
        "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        "md5:1c94bd0d3b6e51c2f7a3a0c54d8a2b7e.dir",
        "Device CPU AMD EPYC 9654, fp32, 2 CPU threads",
        "Training time 12 min 42 s, 38 s an epoch",
        "Peak memory 1.3 GiB",
        "torch 2.14.1, numpy 2.4.6",
        "git checkout 3f9d2c47a5e06b18d7c92f04a6b3e8105d7c4f21 dvc repro",
        "the run is named resnet20 on cifar10, with the tag pipeline.key = 7c1f6f0f5b0e4d3e9f64",
    ):
        assert fact in page.text
    assert "uncommitted" not in page.text


def test_the_gpu_of_a_run_is_named(tmp_path: Path) -> None:
    device = {"type": "cuda:1", "name": "NVIDIA H200", "threads": 16, "precision": "bf16"}
    text = page_of(write_results(tmp_path, run={"device": device})).text
    assert "on the GPU NVIDIA H200" in text
    assert "GPU NVIDIA H200 (cuda:1), bf16, 16 CPU threads" in text
    assert "1.3 GiB of the GPU" in text


def test_uncommitted_changes_are_told(tmp_path: Path) -> None:
    made = {
        "git_commit": "3f9d2c47a5",
        "git_dirty": True,
        "dvc_data_hash": None,
        "versions": {},
        "platform": "",
        "host": "",
    }
    text = page_of(write_results(tmp_path, run={"provenance": made})).text
    assert text.count("3f9d2c47a5 with uncommitted changes") == 2
    assert "the commit alone may not give the same numbers" in text


def test_a_run_outside_git_has_a_page_too(tmp_path: Path) -> None:
    made = {"git_commit": None, "git_dirty": None, "dvc_data_hash": None, "versions": {}, "platform": "", "host": ""}
    text = page_of(write_results(tmp_path, run={"provenance": made})).text
    assert "no git commit was recorded" in text
    assert "git checkout" not in text


FILES = ("run", "history", "metrics", "per_class", "confusion_matrix", "mistakes")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    project = write_results(tmp_path)
    getattr(project, name).unlink()
    with pytest.raises(PipelineError, match="is missing: run `dvc repro`") as error:
        results.read(project)
    assert str(getattr(project, name)) in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, name: str, damage: str) -> None:
    project = write_results(tmp_path)
    path: Path = getattr(project, name)
    content = path.read_bytes()
    # Cut in the last line, so that a CSV file is short of a value and not only of a row.
    cut = content.rstrip().rfind(b",") if path.suffix == ".csv" else len(content) // 2
    path.write_bytes({"cut": content[:cut], "empty": b"", "noise": b"\xff\x00\x9d" * 99}[damage])
    with pytest.raises(PipelineError, match=r"is damaged .*: run `dvc repro`") as error:
        results.read(project)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("run", '"elapsed_s"', '"elapsed"', "has no elapsed_s, another version"),
        ("run", '"threads": 2', '"threads": "two"', r"device\.threads: Input should be a valid integer"),
        ("run", '"automobile"', '"car"', "its classes are not those of run.json"),
        ("metrics", '"ece": 0.0213', '"ece": null', r"evaluate\.ece: Input should be a valid number"),
        ("history", "learning_rate", "lr", "column learning_rate"),
        ("confusion_matrix", "\nautomobile", "\nship", "are not the classes"),
        ("confusion_matrix", ",990", ",-990", "does not hold counts"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path: Path, name: str, old: str, new: str, reason: str) -> None:
    project = write_results(tmp_path)
    path: Path = getattr(project, name)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(PipelineError, match=reason):
        results.read(project)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"predicted": np.array([10])}, "numbers of classes outside 0 to 9"),
        ({"images": np.zeros((1, 32, 32, 3))}, "images are float64"),
        ({"images": np.zeros((1, 32, 32, 4), np.uint8)}, r"uint8 \[1, 32, 32, 4\]"),
        ({"index": np.array([1, 2])}, "damaged"),
    ],
)
def test_mistakes_that_make_no_sense_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    project = write_results(tmp_path, mistakes=1)
    with np.load(project.mistakes) as arrays:
        content = dict(arrays) | change
    np.savez(project.mistakes, **content)
    with pytest.raises(PipelineError, match=reason):
        results.read(project)


@pytest.mark.slow
def test_the_stage_adds_page_and_images_to_the_run_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    project = write_results(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert report.main([]) == 0
    assert capsys.readouterr().out == "wrote results/report/index.html: open it in a browser\n"
    deliver(tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("pipeline")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.data.tags["pipeline.key"] == "7c1f6f0f5b0e4d3e9f64"
    assert run.info.run_name == "resnet20 on cifar10"
    assert run.info.status == "FINISHED"
    paths = [file.path for folder in ("plots", "report") for file in client.list_artifacts(run.info.run_id, folder)]
    names = ("accuracies", "confusion_matrix", "learning_curves", "training_speed")
    assert paths == [*(f"plots/{name}.png" for name in names), "report/index.html"]
    kept = Path(client.download_artifacts(run.info.run_id, "report/index.html", str(tmp_path)))
    assert kept.read_bytes() == project.page.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (400, "light")])
def test_a_browser_shows_the_page_from_disk(written: Project, tmp_path: Path, width: int, scheme: str) -> None:
    from browser import headless_browser

    with headless_browser(tmp_path) as driver:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        preference = {"name": "prefers-color-scheme", "value": scheme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preference]})
        driver.get(written.page.as_uri())
        shown, asked, overflow, ground = driver.execute_script(
            "return [[...document.images].map(image => image.complete && image.naturalWidth),"
            " performance.getEntriesByType('resource').map(entry => entry.name),"
            " document.documentElement.scrollWidth - document.documentElement.clientWidth,"
            " getComputedStyle(document.body).backgroundColor]"
        )
        assert len(shown) == 24
        assert all(shown)
        assert [name for name in asked if not name.startswith("data:")] == []
        assert overflow <= 0
        assert ground == {"light": "rgb(243, 245, 247)", "dark": "rgb(16, 19, 23)"}[scheme]
        assert driver.get_log("browser") == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 700, 400])
def test_a_long_class_name_wraps_and_leaves_room_for_its_figures(tmp_path: Path, width: int) -> None:
    from browser import headless_browser

    project = write_results(
        tmp_path / "project", ("Abies_" + 14 * "grandis", "b" * 80, "Two words of a longer name " * 3)
    )
    (tmp_path / "page.html").write_text(pages.page(results.read(project), ALONE), encoding="utf-8")
    with headless_browser(tmp_path) as driver:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get((tmp_path / "page.html").as_uri())
        beyond, narrowest = driver.execute_script(
            "const tables = [...document.querySelectorAll('table.classes')];"
            "return [Math.max(...tables.map(table => table.offsetWidth - table.parentElement.clientWidth)),"
            " Math.min(...tables.flatMap(table => [...table.querySelectorAll('tbody th')]).map(th => th.offsetWidth))]"
        )
    assert beyond <= 0
    assert narrowest >= (60 if width > 560 else 40)


def decoded(image: dict[str, str]) -> Image.Image:
    """The image of an <img>."""
    return Image.open(io.BytesIO(data_of(image)))


def data_of(image: dict[str, str]) -> bytes:
    """The PNG file inside an <img>."""
    return base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_equal_images_have_a_section_with_counts_and_examples(tmp_path: Path) -> None:
    found = {"training": 3, "test": 0, "leaked": 2, "conflicting": 0}
    examples = {"leaked": ["train/cat/1.png = test/cat/<9>.png"], "conflicting": [], "copies": []}
    written = write_results(tmp_path)
    run = json.loads(written.run.read_text())
    run["data"]["duplicates"] = found | {"examples": examples}
    written.run.write_text(json.dumps(run))
    text = page_of(written).text
    assert "2 of the test set in the training set, 0 with two labels, 3 copies" in text
    assert "2 of 10,000 test images are also in the training set" in text
    assert "train/cat/1.png = test/cat/<9>.png" in text
    run["data"]["duplicates"] = dict.fromkeys(found, 0) | {"examples": {}}
    written.run.write_text(json.dumps(run))
    text = page_of(written).text
    assert "Equal images none" in text
    assert "No test image is equal to a training image." in text


def test_a_source_that_has_changed_since_the_training_is_named_with_the_command(tmp_path: Path) -> None:
    written = write_results(tmp_path)
    run = json.loads(written.run.read_text())
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    run["data"] |= {"source": "photos", "fingerprint": "of other photos"}
    written.run.write_text(json.dumps(run))
    assert "photos has changed since it was read" in page_of(written).text
    assert "dvc repro -f download" in page_of(written).text
