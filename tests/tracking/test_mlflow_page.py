"""What plain `mlflow ui` in the project shows in a browser."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from browser import headless_browser
from mlflow import MlflowClient
from mlflow_runs import wait_until
from PIL import Image
from recordings import DIGITS, Network, log_model
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from servers import free_port, mlflow_server

from pipeline import provenance
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.tracking import Tracker

pytestmark = pytest.mark.slow


def test_mlflow_ui_without_arguments_shows_the_run(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", tmp_path / "project")
    project.root.mkdir()
    record(project)
    with mlflow_ui(project.root) as address, headless_browser(tmp_path) as browser:
        # Without this MLflow shows its pages for generative AI.
        training = "?workflowType=machine_learning"
        browser.get(f"{address}/#/experiments/1/runs{training}")
        see(browser, "resnet20 on digits", tmp_path / "runs.png")

        (run_id,) = {folder.name for folder in (project.root / "mlruns" / "pipeline").iterdir()} - {"models"}
        run = f"{address}/#/experiments/1/runs/{run_id}"
        browser.get(f"{run}{training}")
        for text in ("resnet20 on digits", "Finished", "0.95", "digits (0123456789abcdef)", "Logged models (1)"):
            see(browser, text, tmp_path / "run.png")

        browser.get(f"{run}/model-metrics{training}")
        see(browser, "train.training_loss", tmp_path / "metrics.png")
        wait_until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "path.js-line")) >= 2, "the curves")
        browser.save_screenshot(str(tmp_path / "metrics.png"))

        browser.get(f"{run}/artifacts/plots/curves.png{training}")
        wait_until(lambda: 300 in image_widths(browser), "the image")
        browser.save_screenshot(str(tmp_path / "image.png"))

        browser.find_element(By.XPATH, "//*[text()='per_class.json']").click()
        for text in ("precision", "aeroplane"):
            see(browser, text, tmp_path / "table.png")


def test_mlflow_ui_shows_a_study_its_trials_and_a_comparison_of_them(searched: Path, tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{searched / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("pipeline").experiment_id])
    by_name = {run.info.run_name: run.info.run_id for run in runs}
    trials = sorted(run.info.run_name for run in runs if run.data.tags.get("study") == "main")
    assert [name.partition(":")[0] for name in trials] == ["0", "1", "2", "3", "4"]
    finished = next(run for run in runs if run.info.run_name in trials and run.info.status == "FINISHED")
    with mlflow_ui(searched) as address, headless_browser(tmp_path) as browser:
        page, training = f"{address}/#/experiments/1/runs", "?workflowType=machine_learning"
        by_accuracy = "&orderByKey=metrics.%60train.validation_accuracy%60&orderByAsc=false"
        browser.get(f"{page}{training}{by_accuracy}")
        for text in ("Sort: train.validation_accuracy", *trials, "study main"):
            see(browser, text, tmp_path / "study.png")
        shown = browser.find_element(By.TAG_NAME, "body").text
        accuracy = {run.info.run_name: run.data.metrics.get("train.validation_accuracy", 0.0) for run in runs}
        places = {name: shown.index(f"\n{name}\n") for name in trials}
        best, worst = max(trials, key=accuracy.__getitem__), min(trials, key=accuracy.__getitem__)
        assert places[best] < places[worst]

        browser.get(f"{page}/{by_name['study main']}/artifacts/optimisation_history.png{training}")
        wait_until(lambda: max(image_widths(browser), default=0) > 500, "the optimisation history")
        browser.save_screenshot(str(tmp_path / "history.png"))

        browser.get(f"{page}/{finished.info.run_id}{training}")
        for text in ("Parent run", "study main", "Logged models (1)", "Finished"):
            see(browser, text, tmp_path / "trial.png")

        browser.get(f"{page}/{finished.info.run_id}/artifacts/confusion_matrix.png{training}")
        wait_until(lambda: max(image_widths(browser), default=0) > 300, "the confusion matrix")
        browser.save_screenshot(str(tmp_path / "confusion.png"))

        compared = quote(json.dumps([by_name[name] for name in trials]))
        browser.get(f"{address}/#/compare-runs?runs={compared}&experiments={quote(json.dumps(['1']))}")
        for text in ("Comparing 5 Runs from 1 Experiment", "4: lr", "train.learning_rate"):
            see(browser, text, tmp_path / "compared.png")

        model_id = client.get_run(finished.info.run_id).outputs.model_outputs[0].model_id
        browser.get(f"{address}/#/experiments/1/models/{model_id}{training}")
        for text in ("train.learning_rate", finished.info.run_name):
            see(browser, text, tmp_path / "model.png")


def record(project: Project) -> None:
    image = project.root / "curves.png"
    Image.new("RGB", (300, 200), "teal").save(image)
    with Tracker(project) as tracker:
        run = tracker.open("a", name="resnet20 on digits")
        run.log_params({"train.learning_rate": 0.1, "train.epochs": 20})
        run.set_tags(provenance.tags(provenance.collect(project)))
        data = replace(DIGITS, digest="0123456789abcdef")
        run.log_dataset(data, {"training": 90, "validation": 10}, "training")
        for epoch in range(1, 21):
            figures = {"train.training_loss": 1 / epoch, "train.validation_accuracy": 1 - 1 / epoch}
            run.log_metrics(figures, step=epoch)
        run.log_file(image, folder="plots")
        run.log_table({"class": ["aeroplane", "bird"], "precision": [0.5, 1.0]}, "per_class.json")
        log_model(run, Network(), project.root)
        run.finish(Outcome.FINISHED)


def see(browser: Chrome, text: str, screenshot: Path) -> None:
    """Waits until the page shows `text`."""
    try:
        wait_until(lambda: text in browser.find_element(By.TAG_NAME, "body").text, text)
    finally:
        browser.save_screenshot(str(screenshot))


def image_widths(browser: Chrome) -> list[int]:
    """Of the images on the page, in pixels, as they were served."""
    widths: list[int] = browser.execute_script("return Array.from(document.images, image => image.naturalWidth)")
    return widths


@contextmanager
def mlflow_ui(folder: Path) -> Iterator[str]:
    """The address of `mlflow ui`, which has no argument but the port."""
    port = free_port()
    with mlflow_server(folder, port, "ui"):
        yield f"http://127.0.0.1:{port}"
