"""Models of runs: logged, loaded by MLflow and compared with the network, registered."""

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow_runs import client, only_run, runs, wait_until
from recordings import EXAMPLE, Network, log_model, unsent_run

from pipeline import networks, records
from pipeline.config import Config
from pipeline.exporting import mlflow_model
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.records import Meta, load_meta
from pipeline.tracking import Tracker
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.outbox import Operation
from pipeline.tracking.store import Store


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    network: Network = Network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network(torch.from_numpy(EXAMPLE))  # so that the batch norm has statistics
    return network


@pytest.fixture
def location(network: Network, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of the network's model in a run, and MLflow's environment set so that it finds it."""
    with Tracker(project) as tracker:
        log_model(tracker.open("a"), network, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.home}/mlflow.db")
    (output,) = only_run(project).outputs.model_outputs
    return f"models:/{output.model_id}"


def test_a_model_gives_the_networks_logits_for_any_number_of_images(network: Network, location: str) -> None:
    assert network.training, "the network is left as it is"
    network.eval()
    graph, function = mlflow.pytorch.load_model(location), mlflow.pyfunc.load_model(location)
    for count in (1, 2, 5):
        images = np.random.default_rng(count).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
        with torch.no_grad():
            expected = network(torch.from_numpy(images))
            torch.testing.assert_close(graph(torch.from_numpy(images)), expected)
        found = [list(one["probabilities"].values()) for one in function.predict(images)]
        np.testing.assert_allclose(found, expected.softmax(1).numpy(), rtol=1e-5, atol=1e-6)


def test_a_model_has_signature_example_and_no_pickle(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = mlflow.pyfunc.load_model(location)
    inputs, outputs = function.metadata.signature.inputs, function.metadata.signature.outputs
    assert [(item.type, item.shape) for item in inputs] == [(np.dtype("uint8"), (-1, 3, 8, 8))]
    assert outputs.input_names() == ["label", "probability", "probabilities"]
    np.testing.assert_array_equal(function.input_example, EXAMPLE)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.pytorch.load_model(location)


@pytest.mark.parametrize("is_sound", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_model_is_made_of_the_weights_by_who_sends_them(
    project: Project, tmp_path: Path, settings: Config, is_sound: bool
) -> None:
    meta = load_meta(write_meta(tmp_path / "meta.json"))
    network = networks.build(settings.model, meta, seed=0)
    networks.save(network, tmp_path / "model.safetensors")
    if not is_sound:
        (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with Tracker(project) as tracker:
        for _ in range(2):  # a training that was killed before it ended logs its model again
            run = tracker.open("a")
            run.log_weights(tmp_path / "model.safetensors", tmp_path / "meta.json", settings.model, EXAMPLE)
            run.log_metrics({"loss": 1.0})
            run.finish(Outcome.FINISHED)
        (tmp_path / "model.safetensors").unlink()
    run_after = only_run(project)
    assert run_after.data.metrics == {"loss": 1.0}
    assert not list(project.outbox.iterdir())
    if not is_sound:
        assert not run_after.outputs.model_outputs
        assert "model.safetensors" in run_after.data.tags["model.error"]
        return
    (output,) = run_after.outputs.model_outputs
    model = client(project).get_logged_model(output.model_id)
    assert model.status == "READY"
    with torch.no_grad():
        loaded = mlflow.pytorch.load_model(model.artifact_location)
        torch.testing.assert_close(loaded(torch.from_numpy(EXAMPLE)), network.eval()(torch.from_numpy(EXAMPLE)))


def write_meta(path: Path) -> Path:
    meta = Meta("stripes", ("low", "high"), (3, 8, 8), (0.5,) * 3, (0.25,) * 3, {"train": 9, "test": 1}, "sha256:0", "")
    records.write(meta, path)
    return path


def test_a_saved_model_is_logged_once_although_it_was_recorded_three_times(project: Project, tmp_path: Path) -> None:
    with Tracker(project) as tracker:
        for number in range(3):
            mlflow_model.save(Network(), EXAMPLE, tmp_path / "model")
            run = tracker.open("a")
            run.log_saved_model(tmp_path / "model")
            run.finish(Outcome.INTERRUPTED)
            if number:
                wait_until(lambda: not tracker.waiting)
    (output,) = only_run(project).outputs.model_outputs
    assert client(project).get_logged_model(output.model_id).status == "READY"
    assert not list((project.home / ".outbox").rglob("model*"))


def test_a_model_can_be_registered_under_an_alias_that_moves(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = torch.from_numpy(EXAMPLE)
    for number, key in enumerate(("a", "b")):
        torch.manual_seed(number)
        network = Network()
        mlflow_model.save(network, EXAMPLE, tmp_path / key)
        with Tracker(project) as tracker:
            run = tracker.open(key)
            run.log_saved_model(tmp_path / key)
            assert not (tmp_path / key).exists()
            run.register_model("digits-search", "best")
        with monkeypatch.context() as patched:
            patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.home}/mlflow.db")
            loaded = mlflow.pytorch.load_model("models:/digits-search@best")
        with torch.no_grad():
            torch.testing.assert_close(loaded(pixels), network.eval()(pixels))
    (second, first) = client(project).search_model_versions("name = 'digits-search'")
    assert (first.version, second.version) == (1, 2)
    assert [run.info.run_id for run in runs(client(project))] == [first.run_id, second.run_id]


def test_a_model_is_registered_once_although_it_is_delivered_twice(project: Project, tmp_path: Path) -> None:
    run, outbox = unsent_run(project, "a")
    log_model(run, Network(), tmp_path)
    run.register_model("digits-search", "best")
    lines = [json.loads(line) for line in outbox.journal.read_text().splitlines()]
    assert outbox.opening
    for _ in range(2):
        delivery = Delivery(Store.of(project))
        delivery.connect()
        for line in lines:
            delivery.deliver(outbox.folder, outbox.opening, [Operation(**line)])
    outbox.close()
    (version,) = client(project).search_model_versions("name = 'digits-search'")
    assert client(project).get_model_version_by_alias("digits-search", "best").version == version.version == 1


def test_a_model_that_the_run_lacks_is_not_registered_and_a_line_says_so(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    with Tracker(project) as tracker:
        run = tracker.open("a", name="trial 0")
        with pytest.raises(ValueError, match="got 'a/b'"):
            run.register_model("a/b", "best")
        run.register_model("digits-search", "best")
    assert capfd.readouterr().err == "MLflow did not take the register of the run trial 0: the run has no model\n"


@pytest.mark.slow
def test_a_model_that_another_process_wrote_is_logged_without_torch(project: Project) -> None:
    mlflow_model.save(Network(), EXAMPLE, project.home / "model")
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.files import Project; from pipeline.tracking import Tracker\n"
        "with Tracker(Project(Path.cwd(), Path.cwd())) as tracker:\n"
        "    run = tracker.open('a')\n"
        "    run.log_confusion_matrix([[1, 0], [0, 1]], ['cat', 'dog'])\n"
        "    run.log_saved_model(Path('model'))\n"
        "    run.register_model('digits-search', 'best')\n"
        "print([name for name in ('torch', 'matplotlib') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project.home, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert only_run(project).outputs.model_outputs
