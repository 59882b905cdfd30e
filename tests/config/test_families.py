import json
import re
from pathlib import Path

import pytest
from places import REPOSITORY

from pipeline import config
from pipeline.config import FAMILIES, Config, Model, Scalar
from pipeline.config.families import DepthRule
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("rule", "depth", "nearest"),
    [
        (DepthRule(step=6, least=8), 21, (20, 26)),
        (DepthRule(step=6, least=8), 25, (20, 26)),
        (DepthRule(step=6, least=8), 5, (8, 14)),
        (DepthRule(step=3, least=5), 10, (8, 11)),
    ],
)
def test_an_illegal_depth_lies_between_the_nearest_legal_ones(
    rule: DepthRule, depth: int, nearest: tuple[int, int]
) -> None:
    assert not rule.allows(depth)
    assert rule.nearest(depth) == nearest
    assert all(rule.allows(legal) for legal in nearest)
    assert not any(rule.allows(between) for between in range(nearest[0] + 1, nearest[1]))


def test_the_schema_offers_the_families_of_the_table_in_its_order() -> None:
    family = json.loads(config.schema())["$defs"]["Model"]["properties"]["family"]
    offered, own = family["anyOf"]
    assert offered == {"enum": list(FAMILIES), "type": "string"}
    assert re.match(own["pattern"], "mypackage.nets:build")


def test_what_a_family_reads_are_keys_of_the_model() -> None:
    for name, family in FAMILIES.items():
        assert set(family.reads) < set(Model.model_fields), name
        assert ("depth" in family.reads) == (family.depth is not None), name


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({"model.family": "plain", "model.depth": 20}, "plain20"),
        ({"model.family": "speed", "model.depth": 8}, "speed8"),
        ({"model.family": "vgg11"}, "vgg11"),
        ({"model.family": "torchvision", "model.name": "convnext_tiny"}, "convnext_tiny"),
    ],
)
def test_a_network_is_called_by_its_family_and_its_size(
    settings: Config, values: dict[str, Scalar], label: str
) -> None:
    assert settings.with_values(values).model.label == label


def test_keys_that_the_family_does_not_read_are_not_in_use(settings: Config) -> None:
    vgg = settings.with_values({"model.family": "vgg11", "model.width": 8}).model
    assert vgg.in_use() == {"family": "vgg11", "width": 8, "dropout": 0.0}
    assert vgg.in_use() == vgg.model_copy(update={"depth": 32, "stem": "imagenet"}).in_use()


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            "{family: pretrained, backbone: resnet50, weights: null, trained: head}",
            (
                "model.family pretrained is one of torchvision's networks today: write family: torchvision, "
                "name: resnet50, weights: default, stem: imagenet"
            ),
        ),
        (
            "{family: resnet34, width: 16, stem: small}",
            (
                "model.family resnet34 is one of torchvision's networks today (of 64 channels, not 16; the family "
                "resnet has a width): write family: torchvision, name: resnet34, stem: small"
            ),
        ),
        (
            "{family: torchvision, name: convnet_tiny}",
            'model.name must be one of 80 names (nearest: convnext_tiny), got "convnet_tiny"',
        ),
    ],
)
def test_a_family_of_older_versions_and_a_misspelt_network_are_one_sentence_with_what_to_write(
    tmp_path: Path, model: str, sentence: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"model: {model}\n")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(caught.value) == f"one thing is wrong in {path}:\n  {sentence}"


def test_a_file_of_an_older_version_that_has_no_use_for_the_backbone_loads(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("model: {family: speed, backbone: resnet50}\n")
    assert config.load(path).model == Model()
    with pytest.raises(ConfigError, match=r"model\.backbone is called model\.name today"):
        config.load(path, {"model.backbone": "resnet18"})


def test_networks_can_be_searched_by_name_and_a_misspelt_one_is_said_with_the_nearest() -> None:
    def searched(*names: str) -> Config:
        path = REPOSITORY / "examples" / "digits" / "params.yaml"
        return config.load(path, {"model.family": "torchvision", "space.model.name": names})

    assert searched("resnet18", "swin_t").space["model.name"].holds("swin_t")
    with pytest.raises(ConfigError, match=r"space\.model\.name holds .* one of 80 names \(nearest: swin_t"):
        searched("resnet18", "swim_t")
