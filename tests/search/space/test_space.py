import json
from typing import Any

import numpy as np
import optuna
import pytest
from dvc.utils.serialize import dumps_yaml, parse_yaml, parse_yaml_for_update
from places import REPOSITORY

from pipeline import config
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.search.space.space import Space

SHIPPED = REPOSITORY / "examples" / "resnet20" / "params.yaml"
FINITE = {
    "space.train.learning_rate": {"low": 0.1, "high": 0.5, "step": 0.1},
    "space.train.weight_decay": [0.0005],
    "space.train.label_smoothing": [0, 0.1],
    "space.augment.cutout": {"low": 0.3, "high": 0.5, "step": 0.1, "when": {"augment.policy": ["crop_flip_cutout"]}},
}


@pytest.fixture
def space() -> Space:
    return Space.of(config.load(SHIPPED))


@pytest.fixture
def finite() -> Space:
    return Space.of(config.load(SHIPPED, FINITE))


def small(axes: dict[str, Any]) -> Space:
    """A space of these keys alone."""
    content = config.read_yaml(SHIPPED) | {"space": axes}
    return Space.of(config.parse(content, {}, "the test"))


def is_sound(settings: Config, values: dict[str, Any]) -> bool:
    return all(settings.space[name].holds(value) for name, value in values.items())


def test_a_configuration_holds_the_keys_that_make_sense_together(space: Space) -> None:
    assert len(space) == 8
    assert space.names[0] == "train.learning_rate"
    assert space.own["augment.policy"] == "crop_flip"
    assert "augment.cutout" not in space.own
    cut = space.active({"augment.cutout": 0.5, "augment.policy": "crop_flip_cutout", "train.epochs": 3})
    assert list(cut) == ["augment.policy", "augment.cutout"], "in the order of the space, without what is not in it"


def test_what_depends_on_an_inactive_key_is_inactive_too() -> None:
    space = small(
        {
            "train.momentum": {"choices": [0.8, 0.9], "when": {"model.width": [16]}},
            "model.width": {"choices": [16, 32], "when": {"model.depth": [20]}},
            "model.depth": [14, 20],
        }
    )
    values = {"train.momentum": 0.8, "model.width": 16, "model.depth": 14}
    assert space.active(values) == {"model.depth": 14}
    assert space.active(values | {"model.depth": 20}) == values | {"model.depth": 20}
    assert space.size == len(space.grid()) == 4


def test_random_configurations_lie_inside_the_space_as_plain_values(space: Space) -> None:
    settings = config.load(SHIPPED)
    found = space.random(np.random.default_rng(0), 500)
    assert all(is_sound(settings, values) for values in found)
    assert {type(value) for values in found for value in values.values()} == {int, float, str}
    assert {values["model.depth"] for values in found} == {8, 14, 20, 26, 32}
    cut = [values for values in found if values["augment.policy"] == "crop_flip_cutout"]
    assert 100 < len(cut) < 240
    assert all(("augment.cutout" in values) == (values in cut) for values in found)
    # On a log scale half of 0.02..0.8 is below the geometric middle, 0.126.
    low = sum(float(str(values["train.learning_rate"])) < 0.1265 for values in found)
    assert 200 < low < 300


def test_each_whole_number_is_as_likely_as_the_others_and_on_a_log_scale_each_factor() -> None:
    space = small({"model.width": {"low": 8, "high": 16}, "train.batch_size": {"low": 2, "high": 512, "log": True}})
    found = space.random(np.random.default_rng(0), 9000)
    widths = np.bincount([int(str(values["model.width"])) for values in found])[8:]
    assert len(widths) == 9
    assert widths.min() > 880
    batches = np.array([values["train.batch_size"] for values in found])
    assert (batches.min(), batches.max()) == (2, 512)
    assert 0.45 < np.mean(batches < 32) < 0.56
    few = small({"model.width": {"low": 1, "high": 16, "log": True}}).random(np.random.default_rng(0), 9000)
    # From 0.5 to 1.5 is a factor of 3, of the 33 from 0.5 to 16.5.
    assert np.mean([values["model.width"] == 1 for values in few]) == pytest.approx(np.log(3) / np.log(33), abs=0.02)


def test_a_spread_is_the_same_again_even_and_its_beginning_is_the_shorter_one(space: Space) -> None:
    assert space.spread(5, 3) == space.spread(13, 3)[:5]
    assert space.spread(5, 3) != space.spread(5, 4)
    rates = sorted(
        np.log(float(str(values["train.learning_rate"])) / 0.02) / np.log(40) for values in space.spread(16, 0)
    )
    assert [int(16 * rate) for rate in rates] == list(range(16)), "one in each sixteenth"
    assert space.spread(0, 0) == []


def test_a_mutation_changes_something_a_little_and_never_leaves_the_space(space: Space) -> None:
    settings, start = config.load(SHIPPED), space.own
    found = space.mutated(start, np.random.default_rng(0), 400)
    assert all(is_sound(settings, values) for values in found)
    assert start not in found
    changed = [sum(values.get(name) != start.get(name) for name in start) for values in found]
    assert min(changed) >= 1
    assert 3 < np.mean(changed) < 4, "half of seven"
    shares = [values["train.learning_rate"] == start["train.learning_rate"] for values in found]
    assert 0.4 < np.mean(shares) < 0.6
    few = space.mutated(start, np.random.default_rng(0), 400, share=0.0)
    assert {sum(values.get(name) != start[name] for name in start) for values in few} == {1}
    distances = np.abs(space.encode(few) - space.encode([start]))[:, 0]
    assert 0.05 < distances[distances > 0].mean() < 0.2
    assert any("augment.cutout" in values for values in found), "what becomes active has a value"


def test_a_mutation_at_the_edge_turns_back_inside() -> None:
    space = small({"train.momentum": {"low": 0.5, "high": 0.9}, "model.depth": {"low": 8, "high": 20, "step": 6}})
    found = space.mutated({"train.momentum": 0.9, "model.depth": 20}, np.random.default_rng(0), 200, share=1.0, sd=0.5)
    momenta = np.array([values["train.momentum"] for values in found])
    assert 0.5 <= momenta.min() < momenta.max() < 0.9
    assert {values["model.depth"] for values in found} == {8, 14}


def test_a_space_of_single_choices_has_one_configuration_and_no_mutation() -> None:
    space = small({"model.width": [16], "augment.policy": ["crop_flip"]})
    only = {"model.width": 16, "augment.policy": "crop_flip"}
    assert (space.size, space.grid()) == (1, [only])
    assert space.mutated(only, np.random.default_rng(0), 2) == [only, only]
    assert space.encode([only]).tolist() == [[0.5, 0.5]]


def test_an_empty_space_has_the_empty_configuration() -> None:
    space, generator = small({}), np.random.default_rng(0)
    assert (space.own, space.size, space.grid()) == ({}, 1, [{}])
    assert space.random(generator, 2) == space.spread(2, 0) == space.mutated({}, generator, 2) == [{}, {}]
    assert space.encode([{}, {}]).shape == (2, 0)


def test_numbers_are_encoded_on_their_scale_and_names_one_hot() -> None:
    space = small(
        {
            "train.learning_rate": {"low": 0.01, "high": 1.0, "log": True},
            "model.depth": {"low": 8, "high": 32, "step": 6},
            "train.batch_size": [256, 64, 128],
            "augment.policy": ["none", "crop_flip", "crop_flip_cutout"],
            "train.optimizer": ["sgd", "adam"],
            "augment.cutout": {"low": 0.2, "high": 0.6, "when": {"augment.policy": ["crop_flip_cutout"]}},
            "train.warmup": {"low": 0.1, "high": 0.5, "step": 0.2},
        }
        | {"train.warmup": {"low": 0.05, "high": 0.45, "step": 0.2}}
    )
    first = {"train.learning_rate": 0.1, "model.depth": 14, "train.batch_size": 128, "augment.policy": "none"}
    second = {"train.learning_rate": 1.0, "model.depth": 32, "train.batch_size": 256, "augment.cutout": 0.3}
    encoded = space.encode(
        [
            first | {"train.optimizer": "sgd", "train.warmup": 0.25},
            second | {"augment.policy": "crop_flip_cutout", "train.optimizer": "adam", "train.warmup": 0.05},
        ]
    )
    assert encoded.dtype == np.float64
    assert encoded.tolist() == pytest.approx(
        np.array([[0.5, 0.25, 0.5, 1, 0, 0, 0, 0.5, 0.5], [1, 1, 1, 0, 0, 1, 1, 0.25, 0]])
    )


def test_the_grid_has_each_configuration_once_in_the_order_of_the_space(finite: Space) -> None:
    grid = finite.grid()
    # 5 rates x 3 batch sizes x 2 smoothings x 5 depths x 3 widths x (2 policies + 1 with 3 cutouts)
    assert len(grid) == finite.size == 5 * 3 * 2 * 5 * 3 * 5
    assert len({json.dumps(values) for values in grid}) == len(grid)
    assert [values["augment.policy"] for values in grid[:3]] == ["flip", "crop_flip", "crop_flip_cutout"]
    assert [values.get("augment.cutout") for values in grid[:5]] == [None, None, 0.3, 0.4, 0.5]
    assert {values["train.learning_rate"] for values in grid} == {0.1, 0.2, 0.3, 0.4, 0.5}
    assert finite.own in grid


def test_a_space_with_all_floats_of_a_range_has_no_grid_and_no_size(space: Space) -> None:
    assert space.size is None
    with pytest.raises(ConfigError, match=r"space\.train\.learning_rate .* give it a step or choices"):
        space.grid()


def test_optuna_gets_the_same_space(finite: Space) -> None:
    assert set(finite.distributions) == set(finite.names)
    assert finite.distributions["model.depth"] == optuna.distributions.IntDistribution(8, 32, step=6)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask(finite.distributions)
        assert finite.snapped(trial.params) in finite.grid(), "without rounding errors of float sums"


def test_the_description_is_json_and_differs_where_the_space_does(space: Space, finite: Space) -> None:
    assert json.loads(json.dumps(space.described())) == space.described()
    assert space.described() == Space.of(config.load(SHIPPED, {"train.epochs": 3})).described()
    assert space.described()["train.batch_size"] == {"choices": [64, 128, 256], "when": {}}
    changes: list[dict[str, Any]] = [
        {"space.train.batch_size": [64, 128]},
        {"space.train.learning_rate": {"low": 0.02, "high": 0.8}},
        {"space.augment.cutout": {"low": 0.25, "high": 0.6}},
    ]
    for change in changes:
        assert Space.of(config.load(SHIPPED, change)).described() != space.described()


def test_small_floats_are_the_same_after_dvc_has_rewritten_its_lock_file_again_and_again() -> None:
    space = small({"train.weight_decay": {"low": 1e-8, "high": 1e-3, "log": True}})
    drawn = space.random(np.random.default_rng(0), 200)
    moved = space.mutated(drawn[0], np.random.default_rng(1), 200)
    snapped = [space.snapped({"train.weight_decay": 1e-5 / number}) for number in range(1, 200)]
    numbers = [values["train.weight_decay"] for values in (*drawn, *moved, *snapped)]
    text = dumps_yaml(numbers)
    for _ in range(3):
        text = dumps_yaml(parse_yaml_for_update(text, "dvc.lock"))
    assert parse_yaml(text, "dvc.lock") == numbers


def test_a_space_that_a_search_could_not_begin_in_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.learning_rate is 5\.0, outside space\.train\.learning_rate"):
        Space.of(config.load(SHIPPED, {"train.learning_rate": 5.0}))
