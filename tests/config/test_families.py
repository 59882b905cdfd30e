import json

import pytest

from pipeline import config
from pipeline.config import FAMILIES, Config, Model, Scalar
from pipeline.config.families import DepthRule


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
    assert family["enum"] == list(FAMILIES)
    assert family["type"] == "string"


def test_what_a_family_reads_are_keys_of_the_model() -> None:
    for name, family in FAMILIES.items():
        assert set(family.reads) < set(Model.model_fields), name
        assert ("depth" in family.reads) == (family.depth is not None), name


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({"model.family": "plain", "model.depth": 20}, "plain20"),
        ({"model.family": "speed", "model.depth": 8}, "speed8"),
        ({"model.family": "resnet50"}, "resnet50"),
        ({"model.family": "vgg11"}, "vgg11"),
        ({"model.family": "pretrained", "model.backbone": "resnet34"}, "pretrained resnet34"),
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
