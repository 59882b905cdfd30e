"""python -m pipeline.predict: its predictions are compared with the network's, its refusals with their sentences."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import config, networks, predict
from pipeline.datasets import images, outside, web_images
from pipeline.datasets.wide import Scale
from pipeline.deployment.explaining import occlusion
from pipeline.deployment.inputs import inputs
from pipeline.deployment.opened import Opened, open_model
from pipeline.errors import PipelineError
from pipeline.exporting import mlflow_model
from pipeline.files import Project
from pipeline.networks import Classifier
from pipeline.outcome import Outcome
from pipeline.records import load_meta
from pipeline.tracking import Tracker


@pytest.fixture
def network(project: Project) -> Classifier:
    """A network of the example, which the project has as if the stage train had written it."""
    network = networks.build(config.load(project.params).model, load_meta(project.meta), seed=0)
    torch.manual_seed(0)
    network(torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8))  # so that its batch norms have statistics
    networks.save(network, project.model)
    return network.eval()


@pytest.fixture
def pictures(project: Project) -> list[str]:
    """Five test images as files, whose order by name is that of their numbers."""
    found = []
    for number, pixels in enumerate(np.load(project.test_data / "images.npy")[:5], start=8):
        path = Path("pictures", f"{number}.png")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[..., 0]).save(path)
        found.append(str(path))
    return found


def expected(network: Classifier, project: Project, count: int) -> np.ndarray:
    pixels = np.load(project.test_data / "images.npy")[:count].transpose(0, 3, 1, 2)
    with torch.no_grad():
        return network(torch.from_numpy(pixels)).double().softmax(1).numpy()


def test_predictions_are_those_of_the_network_in_every_form(
    network: Classifier, pictures: list[str], project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    probabilities = expected(network, project, 5)
    assert predict.main(["pictures", "--json", "--top", "99"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [one["image"] for one in found] == pictures
    for one, row in zip(found, probabilities, strict=True):
        by_class = {each["class"]: each["probability"] for each in one["predictions"]}
        assert [by_class[name] for name in "0123456789"] == pytest.approx(row.tolist(), abs=2e-6)
        assert list(by_class.values()) == sorted(by_class.values(), reverse=True)
    assert said.err.startswith("5 images, ") and "images/s, by results/train/model.safetensors" in said.err

    assert predict.main(["pictures", "--csv", "--top", "2"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rank"] for row in rows] == ["1", "2"] * 5
    assert [row["class"] for row in rows[::2]] == [str(label) for label in probabilities.argmax(axis=1)]

    assert predict.main(["pictures", "--top", "1"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["image", "1."]
    assert lines[0].split() == [pictures[0], str(probabilities[0].argmax()), f"{probabilities[0].max():.1%}"]


def test_a_file_alone_suffices_and_equal_networks_are_equal_files(
    network: Classifier, pictures: list[str], project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = project.root / "again.safetensors"
    networks.save(networks.restore(project.model), again)
    assert again.read_bytes() == project.model.read_bytes()
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        shutil.rmtree(project.data)
        project.params.unlink()
        opened = open_model(Project.here(), str(again))
    assert (opened.data, opened.shape, opened.classes) == ("digits", (1, 8, 8), tuple("0123456789"))


def test_images_that_can_not_be_read_are_named_and_the_others_predicted(
    network: Classifier, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pictures/empty.png").touch()
    Path("pictures/torn.png").write_bytes(Path(pictures[0]).read_bytes()[:60])
    assert predict.main(["pictures", "missing.jpg", "--csv", "--top", "1"]) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 6
    assert "pictures/empty.png: it is empty" in said.err
    assert "pictures/torn.png: " in said.err
    assert "missing.jpg: there is no such file" in said.err
    assert "error: 3 of 8 images could not be read; they are named above." in said.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["http://localhost/a.png"], "is an address: --urls allows to fetch images from the web."),
        (["empty"], "no images found in empty"),
        (["empty/*.png"], "no images found in empty/*.png"),
        (["a.png", "--model", "models:/nothing@best"], "mlflow.db is missing, so there is no models:/nothing@best"),
        (["a.png", "--model", "that run"], "mlflow.db is missing, so there is no that run"),
        (["a.png", "--model", "gone.pt2"], "there is no file gone.pt2."),
        (["a.png", "--model", "params.yaml"], "params.yaml is no model by its ending"),
        (["a.png", "--model", "torn.safetensors"], "torn.safetensors can't be read as safetensors"),
        (["a.png", "--model", "torn.pt2"], "torn.pt2 is no .pt2 file of this project"),
        (["a.png"], "results/train/model.safetensors is missing: run `dvc repro`"),
    ],
)
def test_what_is_missing_is_one_sentence(
    project: Project, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    for name in ("torn.safetensors", "torn.pt2"):
        Path(name).write_bytes(b"torn")
    assert predict.main(arguments) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and sentence in error


def test_files_of_an_older_version_say_so(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    network = networks.build(config.load(project.params).model, load_meta(project.meta), seed=0)
    network.description = {}
    networks.save(network, project.model)
    assert predict.main(["a.png"]) == 1
    assert "does not say which network its weights are of" in capsys.readouterr().err


def test_folders_patterns_and_lists_name_each_image_once_in_a_natural_order(pictures: list[str]) -> None:
    Path("pictures/.hidden").mkdir()
    for name in ("pictures/notes.txt", "pictures/.hidden/a.png", "pictures/8.png.explained.png"):
        Path(name).touch()
    both = ["pictures/8.png", "pictures/9.png"]

    def named(*arguments: str, lines: str = "") -> list[str]:
        return [one.name for one in inputs(arguments, io.StringIO(lines), urls=False)]

    assert named("pictures") == named("pictures/*.png") == named("**/*.png") == pictures
    assert named("pictures/?.png", "pictures/8.png", "pictures/8.png.explained.png") == both
    assert named("-", lines="pictures/9.png\n\npictures/8.png\r\n") == both[::-1]
    assert named(str(Path("pictures").resolve() / "?.png")) == [str(Path(name).resolve()) for name in both]
    with pytest.raises(PipelineError, match="is an address"):
        named("-", lines="http://localhost/a.png\n")


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("size", [(8, 8), (40, 25)])
def test_images_from_outside_become_what_download_makes_of_them(
    mode: str, size: tuple[int, int], tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if mode in ("I;16", "F"):
        one = values[..., 0]
        image = Image.fromarray(one / np.float32(255) if mode == "F" else one.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(values).convert("RGBA" if mode == "LA" else mode).convert(mode)
    path = tmp_path / "a.tif"
    image.save(path)
    with images.strict_warnings():
        found = outside.pixels(path, (3, 8, 8), 1)
        from_memory = outside.pixels(io.BytesIO(path.read_bytes()), (3, 8, 8), 1)
        grey = outside.pixels(path, (1, 8, 8), 1)
        of_download = images.rgb(path, 8, Scale(1))
    assert not isinstance(found, str) and not isinstance(grey, str) and not isinstance(from_memory, str)
    np.testing.assert_array_equal(found, of_download.transpose(2, 0, 1))
    np.testing.assert_array_equal(from_memory, found)
    luminance = of_download @ (0.299, 0.587, 0.114)
    np.testing.assert_allclose(grey[0], luminance, atol=1)
    if mode in ("L", "1", "LA", "I;16", "F"):
        np.testing.assert_array_equal(grey[0], of_download[..., 0])


def test_floating_point_images_have_the_scale_of_the_training_or_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(path)
    found = [outside.pixels(path, (3, 8, 8), highest) for highest in (1, 255, None)]
    assert np.unique(found[0]).tolist() == [128]
    assert np.unique(found[1]).tolist() == [0]
    assert isinstance(found[2], str) and "floating-point values, which the network was trained without" in found[2]


def test_the_scale_of_floating_point_images_is_in_the_description(network: Classifier, project: Project) -> None:
    content = json.loads(project.meta.read_text())
    project.meta.write_text(json.dumps(content | {"highest_float": 255}))
    again = networks.build(config.load(project.params).model, load_meta(project.meta), seed=0)
    networks.save(again, project.model)
    assert open_model(project, None).highest_float == 255


def test_an_explanation_points_at_what_the_prediction_rests_on() -> None:
    def logits(images: np.ndarray) -> np.ndarray:
        corner = images[:, 0, :2, 6:].mean(axis=(1, 2)) / 64
        return np.stack([np.zeros(len(images)), corner], axis=1).astype(np.float32)

    model = Opened("made up", "made up", "", ("dark", "light"), (1, 8, 8), None, {}, logits)
    pixels = np.zeros((1, 8, 8), np.uint8)
    pixels[0, :2, 6:] = 255
    carried = occlusion(model, pixels, 1)
    assert np.unravel_index(carried.argmax(), carried.shape) in [(row, column) for row in (0, 1) for column in (6, 7)]
    assert carried[4:, :4].max() < 0.01 < 0.1 < carried.max()


def test_explanations_are_pictures_beside_the_images_or_in_a_folder(
    network: Classifier, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([pictures[0], "--explain", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["explained"] == f"{pictures[0]}.explained.png"
    with Image.open(found["explained"]) as image:
        assert image.size == (768, 384)
    assert predict.main(["pictures", "--explain-to", "why"]) == 0
    assert sorted(path.name for path in Path("why").iterdir()) == sorted(
        f"pictures_{Path(name).name}.explained.png" for name in pictures
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning", "ignore:.*Any type hint is inferred:UserWarning")
def test_models_of_runs_and_of_the_registry_predict_like_the_file(
    network: Classifier, pictures: list[str], project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    example = np.load(project.training_data / "images.npy")[:2].transpose(0, 3, 1, 2).copy()
    mlflow_model.save(network, example, project.root / "model")
    with Tracker(project) as tracker:
        run = tracker.open("a", name="it's a run")
        run.log_saved_model(project.root / "model")
        run.register_model("digits-main", "best")
        run.finish(Outcome.FINISHED)
        tracker.open("b", name="bare").finish(Outcome.FINISHED)

    def predicted(*options: str) -> object:
        assert predict.main(["pictures", "--json", *options]) == 0
        return [
            [(each["class"], pytest.approx(each["probability"], abs=1e-5)) for each in one["predictions"]]
            for one in json.loads(capsys.readouterr().out)
        ]

    by_file = predicted()
    for name in ("it's a run", "models:/digits-main@best", "models:/digits-main/1"):
        assert predicted("--model", name) == by_file, name
    for name, sentence in (
        ("bare", "the run bare has no model."),
        ("none", "has no run none, neither by id nor by name"),
        ("0" * 32, f"has no {'0' * 32}: Run with id={'0' * 32} not found"),
        ("models:/digits-main@worst", "has no models:/digits-main@worst: Registered model alias worst not found"),
        ("models:/other@best", "has no models:/other@best: Registered Model with name=other not found"),
    ):
        assert predict.main(["pictures", "--model", name]) == 1
        assert sentence in capsys.readouterr().err


def test_images_come_from_the_web_only_if_asked_for_and_within_limits(
    network: Classifier,
    pictures: list[str],
    serve: Callable[[dict[str, bytes]], str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = serve({"/a.png": Path(pictures[0]).read_bytes(), "/large.png": bytes(2000)})
    monkeypatch.setattr(web_images.fetch, "__defaults__", (1000, 30.0))
    names = [f"{address}/{name}" for name in ("a.png", "large.png", "gone.png")]
    assert predict.main([*names, "ftp://localhost/a.png", "file:///etc/passwd", pictures[0], "--json", "--urls"]) == 1
    said = capsys.readouterr()
    one, same = json.loads(said.out)
    assert one["predictions"] == same["predictions"]
    assert f"{names[1]}: it has more than 0 MiB" in said.err
    assert f"{names[2]}: the server answered 404" in said.err
    assert said.err.count("its address is neither http nor https") == 2

    monkeypatch.setenv("SECRET", "a.png")
    assert predict.main([f"{address}/${{SECRET}}", "--urls"]) == 1
    assert "the server answered 404" in capsys.readouterr().err
