"""Weights to start from. torchvision's own networks make them here; only the download is replaced."""

import copy
import hashlib
import re
import shutil
from collections.abc import Callable
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
from pipeline.networks import zoo
from pipeline.networks.zoo import ZooNetwork
from pipeline.records import Meta

GREY = Meta("grey", ("a", "b", "c"), (1, 40, 40), (0.3,), (0.2,), {}, "", "")
COLOUR = Meta("colour", ("a", "b", "c"), (3, 40, 40), (0.3,) * 3, (0.2,) * 3, {}, "", "")
SMALL = "shufflenet_v2_x0_5"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """torchvision's network of the name SMALL, with statistics in its batch norms."""
    return with_statistics(SMALL)


@pytest.fixture(scope="module")
def file(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "their.pth"
    torch.save(theirs.state_dict(), path)
    return path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(request: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))


def with_statistics(name: str, side: int = 32, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = torchvision.models.get_model(name, **options)
    network(torch.rand(8, 3, side, side))
    return network.eval()


def built(
    settings: Config, file: Path | None, meta: Meta = COLOUR, *, seed: int = 0, initial: bool = True, **values: Any
) -> networks.Classifier:
    given = {
        "family": "torchvision",
        "name": SMALL,
        "weights": str(file or "default"),
        "stem": None,
        "image_size": None,
    }
    values = given | values
    model = settings.with_values({f"model.{key}": value for key, value in values.items()}).model
    return networks.build(model, meta, seed, initial=initial)


def unfilled(name: str = SMALL, *, small: bool = False) -> ZooNetwork:
    """A network that weights are loaded into."""
    options: dict[str, Any] = {"side": 40, "image_size": None, "trained": "all", "pretrained": True}
    return ZooNetwork(name, small=small, classes=3, **options)


def pixels(meta: Meta) -> Tensor:
    return torch.randint(256, (2, *meta.shape), dtype=torch.uint8)


def expected_logits(theirs: nn.Module, classifier: networks.Classifier, images: Tensor) -> Tensor:
    """Logits of torchvision's network with our last layer, for images in 0..1."""
    network = copy.deepcopy(theirs)
    network.fc = classifier.network.body.fc
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


@pytest.mark.slow
def test_weights_older_than_torchvision_are_normalised_as_it_does_inside(settings: Config, tmp_path: Path) -> None:
    """GoogLeNet's, which hold the further outputs too."""
    theirs = with_statistics("googlenet", aux_logits=True, transform_input=True, init_weights=False, side=64)
    torch.save(theirs.state_dict(), tmp_path / "googlenet.pth")
    classifier = built(settings, tmp_path / "googlenet.pth", name="googlenet").eval()
    images = pixels(COLOUR)
    with torch.inference_mode():
        torch.testing.assert_close(classifier(images), expected_logits(theirs, classifier, images / 255))


@pytest.mark.slow
def test_old_names_of_the_weights_of_a_densenet_are_read(settings: Config, tmp_path: Path) -> None:
    weights = with_statistics("densenet121").state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", name): value for name, value in weights.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    network = built(settings, tmp_path / "old.pth", name="densenet121").network
    name = "features.denseblock4.denselayer16.conv2.weight"
    assert torch.equal(network.body.state_dict()[name], weights[name])


@pytest.mark.slow
def test_the_positions_of_a_vision_transformer_are_interpolated_to_the_size_of_the_images(
    settings: Config, tmp_path: Path
) -> None:
    theirs = torchvision.models.vit_b_32(image_size=96)
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    body = built(settings, tmp_path / "vit.pth", name="vit_b_32", image_size=64).network.body
    whole, smaller = theirs.encoder.pos_embedding, body.encoder.pos_embedding
    assert (whole.shape[1], smaller.shape[1]) == (1 + 9, 1 + 4)
    assert torch.equal(whole[:, 0], smaller[:, 0])
    corners = F.interpolate(
        whole[:, 1:].mT.reshape(1, 768, 3, 3), size=(2, 2), mode="bicubic", align_corners=True
    )  # as torchvision does
    torch.testing.assert_close(smaller[:, 1:], corners.flatten(2).mT)


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
    assert torch.equal(network.state_dict()["body.conv5.0.weight"], weights["conv5.0.weight"])


@pytest.mark.parametrize(
    "rename", [lambda name: name, lambda name: name.replace("body.", "").replace("fc.1", "classify")]
)
def test_what_this_project_has_trained_fits_too_but_for_its_last_layer(
    settings: Config, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    """Under today's names, and under those of the deep ResNets of older versions."""
    values = {"family": "torchvision", "name": SMALL, "stem": "imagenet"}
    trained = networks.build(settings.model.model_copy(update=values), COLOUR, seed=0)
    saved = {rename(name): value for name, value in trained.state_dict().items()}
    safetensors.torch.save_file(saved, tmp_path / "model.safetensors")
    network = built(settings, tmp_path / "model.safetensors", seed=1).network
    theirs, ours = trained.network.state_dict(), network.state_dict()
    assert {name for name in theirs if not torch.equal(theirs[name], ours[name])} == {
        "body.fc.1.weight",
        "body.fc.1.bias",
    }


def test_seeds_differ_in_the_last_layer_alone(settings: Config, file: Path) -> None:
    first, other = (built(settings, file, seed=seed).state_dict() for seed in (1, 2))
    differing = {name for name in first if not torch.equal(first[name], other[name])}
    assert differing == {"network.body.fc.1.weight", "network.body.fc.1.bias"}
    assert first["network.body.fc.1.weight"].shape == (3, 1024)


@pytest.mark.parametrize(
    ("trained", "moving"),
    [
        ("head", ("fc",)),
        ("last_stage", ("stage4", "conv5", "fc")),
        ("all", ("conv1", "stage2", "stage3", "stage4", "conv5", "fc")),
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
    assert {name.split(".")[2] for name in changed} == set(moving)
    assert any(name.endswith("running_mean") for name in changed) == (trained != "head")
    assert classifier.head == list(classifier.network.body.fc.parameters())


def test_a_file_that_is_missing_damaged_or_holds_no_weights_is_reported(
    theirs: nn.Module, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = unfilled()
    for name in ("none.pth", str(tmp_path / "none.pth")):
        with pytest.raises(ConfigError, match=rf"there is no file {re.escape(str(tmp_path))}/none\.pth: correct the"):
            network.load_initial_weights(name)
    for name in ("damaged.pth", "damaged.safetensors"):
        (tmp_path / name).write_bytes(file.read_bytes()[:1000])
        with pytest.raises(ConfigError, match=rf"{name} can't be read as weights \(.*\): put a good copy"):
            network.load_initial_weights(str(tmp_path / name))
    (tmp_path / "junk.pth").write_bytes(b"junk" * 99)
    with pytest.raises(ConfigError, match=r"can't be read as weights \(\w+Error: .+\): put a good copy"):
        network.load_initial_weights(str(tmp_path / "junk.pth"))
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pth")
    with pytest.raises(ConfigError, match=r"checkpoint.pth holds something else than a state_dict: save"):
        network.load_initial_weights(str(tmp_path / "checkpoint.pth"))


def test_a_file_of_another_network_and_a_stem_that_it_does_not_fit_are_reported(
    theirs: nn.Module, file: Path, tmp_path: Path
) -> None:
    network = unfilled("squeezenet1_0", small=True)
    sentence = r"their.pth does not hold weights of .* squeezenet1_0 .*; features.0.weight is missing: set model.stem"
    with pytest.raises(ConfigError, match=sentence):
        network.load_initial_weights(str(file))
    torch.save(torchvision.models.squeezenet1_0().state_dict(), tmp_path / "large.pth")
    sentence = r"1_0 with the stem small; features.0.weight has the shape .*: set model.stem to imagenet, or name a"
    with pytest.raises(ConfigError, match=sentence):
        network.load_initial_weights(str(tmp_path / "large.pth"))
    weights = theirs.state_dict()
    for changed, problem in (
        (weights | {"conv1.0.weight": torch.zeros(24, 1, 7, 7)}, r"conv1.0.weight has the shape \(24, 1, 7, 7\), not"),
        (weights | {"layer5.weight": torch.zeros(1)}, "layer5.weight is no weight of that network"),
        ({"features.0.weight": torch.zeros(1)}, "conv1.0.weight is missing"),
    ):
        torch.save(changed, tmp_path / "other.pth")
        with pytest.raises(ConfigError, match=f"other.pth does not hold weights of .* {SMALL}; {problem}.*: name a"):
            unfilled().load_initial_weights(str(tmp_path / "other.pth"))


def test_files_that_run_code_when_they_are_read_are_not_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"conv1.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ConfigError, match=r"trap.pth can't be read as weights"):
        unfilled().load_initial_weights(str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


def test_weights_come_from_the_address_if_their_checksum_is_right(
    settings: Config, theirs: nn.Module, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    for right, name in ((False, "small-00000000.pth"), (True, f"small-{digits}.pth")):
        shutil.copy(file, tmp_path / name)
        address = (tmp_path / name).as_uri()
        monkeypatch.setattr(zoo, "address_of", lambda _, address=address: address)
        if right:
            weights = built(settings, None).network.state_dict()
            assert torch.equal(weights["body.conv5.0.weight"], theirs.state_dict()["conv5.0.weight"])
        else:
            with pytest.raises(DownloadError, match=r"is damaged \(invalid hash value .*\): delete .*00000.pth if it"):
                unfilled().load_initial_weights("default")


@pytest.mark.usefixtures("no_network")
def test_a_failed_download_is_reported_with_what_to_do_by_hand() -> None:
    sentence = (
        r"weights of mnasnet0_5 could not be fetched from https://download.pytorch.org/models/mnasnet0.5_top1_67.823-"
        r"3ffadce67e.pth "
        r"\(.*no route to host.*\): .*put it somewhere and name it in model.weights\.$"
    )
    with pytest.raises(DownloadError, match=sentence):
        unfilled("mnasnet0_5").load_initial_weights("default")


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
