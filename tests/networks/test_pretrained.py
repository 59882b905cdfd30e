"""torchvision's own networks make the weights of these tests; only the download is replaced."""

import copy
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import networks
from pipeline.config import Config
from pipeline.errors import ConfigError, DownloadError
from pipeline.networks import pretrained
from pipeline.networks.pretrained import ADDRESS, FILES, MEAN, STD, Pretrained
from pipeline.records import Meta

GREY = Meta("grey", ("a", "b", "c"), (1, 40, 40), (0.3,), (0.2,), {}, "", "")
COLOUR = Meta("colour", ("a", "b", "c"), (3, 40, 40), (0.3,) * 3, (0.2,) * 3, {}, "", "")


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """torchvision's resnet18 with statistics in its batch norms."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    network(torch.rand(8, 3, 32, 32))
    return network.eval()


@pytest.fixture(scope="module")
def file(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(theirs.state_dict(), path)
    return path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(request: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))


def built(
    settings: Config, file: Path | None, meta: Meta = COLOUR, *, seed: int = 0, initial: bool = True, **values: Any
) -> networks.Classifier:
    values = {"family": "pretrained", "weights": file and str(file), "image_size": None} | values
    model = settings.with_values({f"model.{key}": value for key, value in values.items()}).model
    return networks.build(model, meta, seed, initial=initial)


def unbuilt(backbone: str = "resnet18") -> Pretrained:
    """A network without memory for weights: enough to find out that they don't fit."""
    with torch.device("meta"):
        return Pretrained(backbone, trained="all", image_size=None, classes=3)


def pixels(meta: Meta) -> Tensor:
    return torch.randint(256, (2, *meta.shape), dtype=torch.uint8)


def expected_logits(theirs: nn.Module, classifier: networks.Classifier, images: Tensor) -> Tensor:
    """Logits of torchvision's network with our last layer, for images in 0..1."""
    network = copy.deepcopy(theirs)
    network.fc = classifier.network.classify
    normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return network(normalised)  # type: ignore[no-any-return]


@pytest.mark.parametrize("ending", ["pth", "pt", "safetensors"])
def test_a_file_of_torchvision_gives_its_features_behind_imagenets_normalisation(
    settings: Config, theirs: nn.Module, file: Path, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"weights.{ending}"
    if ending == "safetensors":
        safetensors.torch.save_file(theirs.state_dict(), path)
    else:
        shutil.copy(file, path)
    monkeypatch.chdir(tmp_path)
    classifier = built(settings, Path(path.name)).eval()
    images = pixels(COLOUR)
    with torch.inference_mode():
        torch.testing.assert_close(classifier(images), expected_logits(theirs, classifier, images / 255))


@pytest.mark.parametrize("size", [32, 64])
def test_grey_images_are_repeated_to_three_channels_and_resized(
    settings: Config, theirs: nn.Module, file: Path, size: int
) -> None:
    classifier = built(settings, file, GREY, image_size=size).eval()
    images = pixels(GREY)
    resized = F.interpolate(
        images / 255, (size, size), mode="bilinear", antialias=True
    )  # only matters where it shrinks
    with torch.inference_mode():
        expected = expected_logits(theirs, classifier, resized.expand(-1, 3, -1, -1))
        torch.testing.assert_close(classifier(images), expected, rtol=1e-4, atol=1e-4)


def test_a_file_without_counts_of_batches_as_torchvisions_old_ones_are_fits(
    settings: Config, theirs: nn.Module, tmp_path: Path
) -> None:
    weights = {name: value for name, value in theirs.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "old.pth")
    network = built(settings, tmp_path / "old.pth").network
    assert torch.equal(network.state_dict()["layer4.1.conv2.weight"], weights["layer4.1.conv2.weight"])


def test_what_this_project_has_trained_fits_too_but_for_its_last_layer(settings: Config, tmp_path: Path) -> None:
    values = {"family": "resnet18", "width": 64, "stem": "imagenet"}
    trained = networks.build(settings.model.model_copy(update=values), COLOUR, seed=0)
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "model.safetensors")
    network = built(settings, tmp_path / "model.safetensors", seed=1).network
    theirs, ours = trained.network.state_dict(), network.state_dict()
    assert {name for name in theirs if not torch.equal(theirs[name], ours[name])} == {"classify.weight"}


def test_seeds_differ_in_the_last_layer_alone(settings: Config, file: Path) -> None:
    first, other = (built(settings, file, seed=seed).state_dict() for seed in (1, 2))
    assert {name for name in first if not torch.equal(first[name], other[name])} == {"network.classify.weight"}
    assert first["network.classify.weight"].shape == (3, 512)


@pytest.mark.parametrize(
    ("trained", "moving"),
    [
        ("head", ("classify",)),
        ("last_stage", ("layer4", "classify")),
        ("all", ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "classify")),
    ],
)
def test_only_the_trained_part_moves_in_a_step_its_batch_norms_too(
    settings: Config, file: Path, trained: str, moving: tuple[str, ...]
) -> None:
    # train.ema works on a copy, whose frozen parts must be its own.
    classifier = copy.deepcopy(built(settings, file, trained=trained))
    before = copy.deepcopy(classifier.state_dict())
    classifier.eval()
    classifier.train()
    classifier(pixels(COLOUR)).square().sum().backward()
    torch.optim.SGD([weight for weight in classifier.parameters() if weight.requires_grad], lr=0.1).step()
    changed = {name for name, value in classifier.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed} == set(moving)
    assert any(name.endswith("running_mean") for name in changed) == (trained != "head")
    assert classifier.head == [classifier.network.classify.weight, classifier.network.classify.bias]


def test_a_file_that_is_missing_damaged_or_holds_no_weights_is_reported(
    theirs: nn.Module, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("none.pth", str(tmp_path / "none.pth")):
        with pytest.raises(ConfigError, match=rf"there is no file {re.escape(str(tmp_path))}/none\.pth: correct the"):
            unbuilt().load_initial_weights(name)
    for name in ("damaged.pth", "damaged.safetensors"):
        (tmp_path / name).write_bytes(file.read_bytes()[:1000])
        with pytest.raises(ConfigError, match=rf"{name} can't be read as weights \(.*\): put a good copy"):
            unbuilt().load_initial_weights(str(tmp_path / name))
    (tmp_path / "junk.pth").write_bytes(b"junk" * 99)
    with pytest.raises(ConfigError, match=r"can't be read as weights \(\w+Error: .+\): put a good copy"):
        unbuilt().load_initial_weights(str(tmp_path / "junk.pth"))
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pth")
    with pytest.raises(ConfigError, match=r"checkpoint.pth holds something else than a state_dict: save"):
        unbuilt().load_initial_weights(str(tmp_path / "checkpoint.pth"))


def test_a_file_of_another_network_is_reported_with_the_backbone_that_it_fits(
    theirs: nn.Module, file: Path, tmp_path: Path
) -> None:
    sentence = (
        r"resnet18.pth does not hold weights of model.backbone, resnet50; they have the layers of resnet18: set "
        r"model.backbone to it, or name another file\.$"
    )
    with pytest.raises(ConfigError, match=sentence):
        unbuilt("resnet50").load_initial_weights(str(file))
    weights = theirs.state_dict()
    for changed, problem in (
        (weights | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, r"conv1.weight has the shape \(64, 1, 7, 7\), not"),
        (weights | {"layer5.weight": torch.zeros(1)}, "layer5.weight is no weight of that network"),
        ({"features.0.weight": torch.zeros(1)}, "conv1.weight is missing"),
    ):
        torch.save(changed, tmp_path / "other.pth")
        with pytest.raises(ConfigError, match=f"other.pth does not hold weights of .*, resnet18; {problem}.*: name a"):
            unbuilt().load_initial_weights(str(tmp_path / "other.pth"))


def test_files_that_run_code_when_they_are_read_are_not_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ConfigError, match=r"trap.pth can't be read as weights"):
        unbuilt().load_initial_weights(str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("backbone", FILES)
def test_addresses_are_torchvisions(backbone: str) -> None:
    name = f"ResNet{backbone.removeprefix('resnet')}_Weights"
    assert getattr(torchvision.models, name).IMAGENET1K_V1.url == ADDRESS + FILES[backbone]


def test_weights_come_from_the_address_if_their_checksum_is_right(
    settings: Config, theirs: nn.Module, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(pretrained, "ADDRESS", f"{tmp_path.as_uri()}/")
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    for right, name in ((False, "resnet18-00000000.pth"), (True, f"resnet18-{digits}.pth")):
        shutil.copy(file, tmp_path / name)
        monkeypatch.setitem(FILES, "resnet18", name)
        if right:
            weights = built(settings, None).network.state_dict()
            assert torch.equal(weights["layer3.0.conv1.weight"], theirs.state_dict()["layer3.0.conv1.weight"])
        else:
            with pytest.raises(DownloadError, match=r"is damaged \(invalid hash value .*\): delete .*00000.pth if it"):
                unbuilt().load_initial_weights(None)


@pytest.mark.usefixtures("no_network")
def test_a_failed_download_is_reported_with_what_to_do_by_hand() -> None:
    sentence = (
        r"weights of resnet34 could not be fetched from https://download.pytorch.org/models/resnet34-b627a593.pth "
        r"\(.*no route to host.*\): .*put it somewhere and name it in model.weights\.$"
    )
    with pytest.raises(DownloadError, match=sentence):
        unbuilt("resnet34").load_initial_weights(None)


@pytest.mark.usefixtures("no_network")
def test_nothing_is_read_or_fetched_for_a_network_that_other_weights_are_loaded_into(
    settings: Config, file: Path, tmp_path: Path
) -> None:
    trained = built(settings, file, trained="head")
    networks.save(trained, tmp_path / "model.safetensors")
    for weights in (None, tmp_path / "gone.pth"):
        loaded = built(settings, weights, seed=1, initial=False, trained="head")
        networks.load(loaded, tmp_path / "model.safetensors")
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in trained.state_dict().items())


def test_images_of_two_channels_and_small_ones_that_are_not_resized_are_reported(settings: Config) -> None:
    two = Meta("two", ("a", "b"), (2, 40, 40), (0.5,) * 2, (0.5,) * 2, {}, "", "")
    small = Meta("digits", ("a", "b"), (1, 8, 8), (0.5,), (0.5,), {}, "", "")
    with pytest.raises(ConfigError, match=r"takes images of 1 or 3 channels, those of two have 2: set model.family"):
        built(settings, None, two, initial=False)
    with pytest.raises(ConfigError, match=r"those of digits have 8 x 8: set model.image_size to 224, or take larger"):
        built(settings, None, small, initial=False)
    built(settings, None, small, initial=False, image_size=32)
