import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from places import REPOSITORY

from pipeline import config
from pipeline.config import Choices, Config, Range
from pipeline.config.__main__ import main
from pipeline.errors import ConfigError

FULL = Path(__file__).parent / "full.yaml"
"""A file of the version in which all keys had to be named."""


def write(folder: Path, *changes: tuple[str, str]) -> Path:
    """The full file with some text replaced."""
    text = FULL.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def errors(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return str(caught.value).splitlines()


def test_the_shipped_file_has_the_defaults_and_says_what_each_is() -> None:
    path = REPOSITORY / "params.yaml"
    settings, defaults = config.load(path), Config()
    assert settings.model_copy(update={"space": {}, "study": {}}) == defaults
    lines = [line for line in path.read_text().splitlines() if re.match(r"  \w+:", line)]
    assert 20 < len(lines) < 40
    assert all(re.search(r" # .", line) for line in lines)


def test_a_full_file_of_an_earlier_version_and_one_that_names_what_differs_mean_the_same() -> None:
    short = REPOSITORY / "examples" / "resnet20" / "params.yaml"
    assert len(short.read_text().splitlines()) < len(FULL.read_text().splitlines()) / 2
    full, named = config.load(FULL), config.load(short)
    assert full.model.in_use() == named.model.in_use()
    assert full.model_copy(update={"model": named.model}) == named  # other families' keys have other defaults today


def test_values_have_dotted_names_in_the_order_of_the_file() -> None:
    values = config.load(FULL).values()
    assert list(values)[:2] == ["data.name", "data.url"]
    assert values["train.learning_rate"] == 0.2


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("epochs: 20", "epochs: 0", "train.epochs must be at least 1, got 0"),
        ("epochs: 20", "epochs: 2.5", "train.epochs must be a whole number, got 2.5"),
        ("epochs: 20", "epochs: true", "train.epochs must be a whole number, got true"),
        ("learning_rate: 0.2", "learning_rate: '0.2'", 'train.learning_rate must be a number, got "0.2"'),
        ("learning_rate: 0.2", "learning_rate: .nan", "train.learning_rate must be a finite number, got NaN"),
        ("momentum: 0.9", "momentum: 1", "train.momentum must be under 1.0, got 1"),
        ("optimizer: sgd", "optimizer: sdg", 'train.optimizer must be sgd, adam, adamw or muon, got "sdg"'),
        ("depth: 20", "depth: 21", "model.depth must be 6n+2 for resnet (nearest: 20 and 26), got 21"),
        ("device: auto", "device: gpu", 'train.device must match ^(auto|cpu|mps|cuda(:\\d+)?)$, got "gpu"'),
        ("epochs: 20", "epoch: 20", "train.epoch is not a key; did you mean train.epochs?"),
        ("width: 16 ", "epochs: 16 ", "model.epochs is not a key; did you mean train.epochs?"),
        ("evaluate:", "evaluation:", "evaluation is not a key; did you mean evaluate?"),
        ("name: cifar10", "name: folder", "data.url must name a directory or an archive when data.name is folder"),
        ("image_size: null", "image_size: 64", "data.image_size must be null for cifar10, whose images have a size"),
        ("name: cifar10", "name: dtd", "data.image_size must be given when data.name is dtd, whose images have many"),
    ],
)
def test_a_bad_value_gets_a_sentence_with_its_name_value_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert any(sentence in line for line in errors(write(tmp_path, (old, new))))


@pytest.mark.parametrize("key", ["storage", "checkpoints"])
@pytest.mark.parametrize(
    "address", ["{}://me:sesame@host/x", "{}://host/x?password=sesame", "other://me:sesame@host/x y"]
)
def test_a_password_in_an_address_is_refused_and_not_repeated(key: str, address: str) -> None:
    protocol = "postgresql+psycopg" if key == "storage" else "sftp"
    with pytest.raises(ConfigError) as caught:
        config.load(REPOSITORY / "params.yaml", {f"tune.{key}": address.format(protocol)})
    assert f"tune.{key} must " in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_all_errors_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    lines = errors(write(tmp_path, ("epochs: 20", "epochs: 0"), ("width: 16", "width: 0"), ("seed: 0", "sed: 0")))
    assert lines[0].startswith("3 things are wrong in ")
    assert len(lines) == 4


@pytest.mark.parametrize("text", ["train: {ema: 0.9}\n", "data:\ntrain:\n  ema: 0.9\nspace:\n"])
def test_sections_and_keys_that_a_file_does_not_name_have_their_defaults(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    defaults = Config()
    assert config.load(path) == defaults.with_values({"train.ema": 0.9})
    assert (defaults.space, defaults.study) == ({}, {})
    assert config.load(path, {"model.width": 64, "space.model.width": [32, 64]}).space["model.width"].holds(32)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train: {epochs: 1\n", "is not valid YAML"),
        ("train: {epochs: 1, epochs: 2}\n", 'found duplicate key "epochs"'),
        ("- 1\n", "must hold the sections data, model"),
        ("", "must hold the sections data, model"),
    ],
)
def test_a_file_that_is_no_params_file_gets_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        config.load(path)


def test_a_missing_file_is_reported_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run this in the folder of a project"):
        config.load(tmp_path / "params.yaml")


def test_overrides_are_checked_like_the_file() -> None:
    assert config.load(FULL, {"train.epochs": 3}).train.epochs == 3
    with pytest.raises(ConfigError, match=r"train\.epochs must be at least 1, got 0"):
        config.load(FULL, {"train.epochs": 0})
    with pytest.raises(ConfigError, match=re.escape("train.epoch is not a key; did you mean train.epochs?")):
        config.load(FULL, {"train.epoch": 3})


def test_a_search_can_be_overridden_too() -> None:
    changes = {"tune.trials": 7, "space.model.width": [16, 32], "space.train.momentum": {"low": 0.8, "high": 0.95}}
    settings = config.load(FULL, changes)
    assert settings.tune.trials == 7
    assert settings.space["model.width"] == Choices(choices=(16, 32))
    assert settings.space["train.momentum"] == Range(low=0.8, high=0.95)
    assert "train.momentum" not in config.load(FULL).space
    with pytest.raises(ConfigError, match=re.escape("tune.trial is not a key; did you mean tune.trials?")):
        config.load(FULL, {"tune.trial": 3})


def test_the_values_of_a_training_are_without_those_of_a_search() -> None:
    assert {name.partition(".")[0] for name in config.load(FULL).values()} == {
        *("data", "model", "augment", "train", "evaluate")
    }


CUTOUT = {"low": 0.25, "high": 0.6}


@pytest.mark.parametrize(
    ("key", "axis", "sentence"),
    [
        ("train.learning_rat", [1.0], "space.train.learning_rat is not a key; did you mean space.train.learning_rate?"),
        ("train.seed", [0, 1], "space.train.seed can't be searched: a trial's seed follows from tune.seed"),
        ("train.validation_share", [0.1], "space.train.validation_share can't be searched: all trials are scored on"),
        ("train.epochs", [1, 2], "space.train.epochs can't be searched: the scheduler decides"),
        ("train.device", ["cpu"], "space.train.device can't be searched: it describes the machine"),
        ("data.name", ["digits"], "space.data.name can't be searched: all trials are compared on the same images"),
        (
            "evaluate.batch_size",
            [1],
            "space.evaluate.batch_size can't be searched: the test set has no part in a search",
        ),
        ("tune.trials", [1], "space.tune.trials can't be searched: it describes a search, not a training"),
        ("train.learning_rate", {"low": 0, "high": 1}, "space.train.learning_rate.low must be over 0.0, got 0"),
        ("train.momentum", {"low": 0.5, "high": 1}, "space.train.momentum.high must be under 1.0, got 1"),
        (
            *("train.momentum", {"low": 0.95, "high": 0.5}),
            "space.train.momentum.low must be under space.train.momentum.high, got 0.95 and 0.5",
        ),
        (
            *("train.weight_decay", {"low": 0, "high": 0.1, "log": True}),
            "space.train.weight_decay.low must be over 0 on a log scale, got 0",
        ),
        (
            *("train.weight_decay", {"low": 0.1, "high": 0.2, "log": True, "step": 0.1}),
            "space.train.weight_decay.step must be left out on a log scale, got 0.1",
        ),
        ("train.momentum", {"low": 0.5, "high": 0.9, "step": 0}, "space.train.momentum.step must be over 0, got 0"),
        (
            *("model.width", {"low": 8, "high": 32, "step": 2.5}),
            "space.model.width.step must be a whole number, got 2.5",
        ),
        ("model.width", {"low": 8.5, "high": 32}, "space.model.width.low must be a whole number, got 8.5"),
        (
            *("model.depth", {"low": 8, "high": 26, "step": 12}),
            "space.model.depth.step must lead from low to high (nearest: 20 and 32), got 12 for a high of 26",
        ),
        (
            *("model.depth", {"low": 8, "high": 32, "step": 3}),
            "model.depth must be 6n+2 for resnet (nearest: 8 and 14), got 11",
        ),
        (
            *("model.depth", {"low": 8, "high": 21}),
            "space.model.depth.high must be 6n+2 for resnet (nearest: 20 and 26), got 21",
        ),
        (
            "model.depth",
            [20, 21],
            "space.model.depth holds a value that model.depth can't have: model.depth must be 6n+2",
        ),
        ("augment.policy", ["crop_flip", "crop"], "augment.policy must be none, flip, crop_flip or crop_flip_cutout"),
        ("augment.policy", {"low": 1, "high": 2}, "must be a list of choices, as augment.policy is no number"),
        ("model.width", [], "space.model.width.choices must hold something, got []"),
        ("model.width", [16, 8, 16], "space.model.width holds 16 twice"),
        ("model.width", [[16]], "space.model.width.choices[0] must be text, a number, true, false or null, got [16]"),
        ("model.width", [16, True], "model.width must be a whole number, got true"),
        ("model.width", {"low": 8}, "space.model.width.high is missing"),
        (
            "model.width",
            {"low": 8, "high": 16, "setp": 1},
            "space.model.width.setp is not a key; allowed are low, high, log, step",
        ),
        ("model.width", {"low": 8, "high": "a"}, 'space.model.width.high must be a number, got "a"'),
        ("model.width", 16, "space.model.width must be a section with keys of its own, got 16"),
        (
            "model.width",
            [8, 24],
            "model.width is 16, outside space.model.width (8 or 24); trial 0 trains the file's own",
        ),
        ("train.momentum", {"low": 0.91, "high": 0.99}, "train.momentum is 0.9, outside space.train.momentum (0.91 to"),
        ("augment.cutout", CUTOUT | {"when": {"augment.polcy": ["flip"]}}, "did you mean augment.policy?"),
        ("augment.cutout", CUTOUT | {"when": {"tune.seed": [0]}}, "must name other keys of a training, got tune.seed"),
        (
            *("augment.cutout", CUTOUT | {"when": {"augment.policy": ["none"]}}),
            'waits for "none", which augment.policy is never in the space ("flip" or "crop_flip" or "crop_f',
        ),
        (
            *("augment.cutout", CUTOUT | {"when": {"train.optimizer": ["adam"]}}),
            'space.augment.cutout.when waits for train.optimizer to be "adam", but the file fixes it at "sgd"',
        ),
        (
            *("augment.cutout", CUTOUT | {"when": {"train.optimizer": ["adm"]}}),
            'space.augment.cutout.when.train.optimizer must be sgd, adam, adamw or muon, got "adm"',
        ),
        (
            *("augment.cutout", CUTOUT | {"when": {"train.learning_rate": [0.2]}}),
            "must name a key that has choices, steps or whole numbers, got train.learning_rate",
        ),
    ],
)
def test_a_bad_search_gets_a_sentence_with_its_name_value_and_what_is_allowed(
    key: str, axis: object, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        config.check_search(config.load(FULL, {f"space.{key}": axis}))
    assert str(caught.value).startswith("one thing is wrong")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tune.sampler": "tpa"}, 'tune.sampler must be auto, tpe, random, grid or gp, got "tpa"'),
        ({"tune.trials": 0}, "tune.trials must be at least 1, got 0"),
        ({"tune.budget": 0}, "tune.budget must be over 0.0, got 0"),
        ({"tune.first": {}}, "tune.first must be a list, got {}"),
        ({"tune.first": [3]}, "tune.first[0] must be a mapping from names to values, got 3"),
        ({"tune.first": [{"model.dept": 8}]}, "tune.first[0]: model.dept is not a key; did you mean model.depth?"),
        ({"tune.first": [{"train.epochs": 8}]}, "tune.first[0] sets train.epochs, which is not in the space"),
        (
            {"tune.first": [{"model.depth": 38}]},
            "tune.first[0] has 38 for model.depth, outside space.model.depth (8 to",
        ),
        ({"tune.first": [{"model.depth": 10}]}, "tune.first[0] has 10 for model.depth"),
        ({"tune.first": [{"model.depth": 8.0}]}, "tune.first[0] has 8.0 for model.depth"),
        ({"tune.first": [{"augment.cutout": 0.5}]}, "augment.cutout, whose `when` in the space does not hold"),
        (
            {"augment.cutout": 0.7, "tune.first": [{"augment.policy": "crop_flip_cutout"}]},
            "tune.first[0] has 0.7 for augment.cutout, outside space.augment.cutout (0.25 to 0.6)",
        ),
        (
            {"tune.scheduler": "asha", "tune.first_rung": 21},
            "tune.first_rung must be at most train.epochs (20), got 21",
        ),
        (
            {"space.train.momentum": {"low": 0.8, "high": 0.9}, "tune.sampler": "grid"},
            "tune.sampler is grid, for which space.train.momentum needs a step or choices",
        ),
        (
            {
                "space.model.width": {"choices": [8, 16], "when": {"train.batch_size": [64]}},
                "space.train.batch_size": {"choices": [64, 128], "when": {"model.width": [8]}},
            },
            "space.train.batch_size and space.model.width wait for each other in their `when`",
        ),
    ],
)
def test_what_does_not_fit_together_in_a_search_is_reported(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        config.check_search(config.load(FULL, changes))


def test_a_value_outside_the_space_is_an_error_for_a_search_alone_and_only_where_it_has_a_part() -> None:
    config.check_search(config.load(FULL, {"augment.cutout": 0.7}))
    outside = config.load(FULL, {"augment.cutout": 0.7, "augment.policy": "crop_flip_cutout"})
    with pytest.raises(ConfigError, match=r"augment\.cutout is 0\.7, outside"):
        config.check_search(outside)
    trained = outside.with_values({"augment.policy": "none", "model.depth": 110, "train.epochs": 1})
    assert trained.model.depth == 110


def test_a_condition_on_a_key_outside_the_space_is_met_by_its_own_value() -> None:
    adam = {"space.train.momentum": {"low": 0.8, "high": 0.95, "when": {"train.optimizer": ["adam", "adamw"]}}}
    config.check_search(config.load(FULL, adam | {"train.optimizer": "adam"}))
    with pytest.raises(ConfigError, match="but the file fixes it at"):
        config.check_search(config.load(FULL, adam))


def test_all_errors_of_a_search_are_reported_beside_those_of_the_values(tmp_path: Path) -> None:
    path = write(tmp_path, ("epochs: 20", "epochs: 0"), ("trials: 50", "trials: 0"), ("low: 8,", "low: 9,"))
    with pytest.raises(ConfigError) as caught:
        config.load(path, {"space.train.seed": [1], "space.model.width": {"low": 3}})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("5 things are wrong in ")
    for part in ("train.epochs", "tune.trials", "space.model.depth.low", "space.train.seed", "space.model.width.high"):
        assert sum(part in line for line in lines) == 1


def test_a_range_counts_its_values_without_the_noise_of_float_sums() -> None:
    steps = Range(low=0.1, high=0.7, step=0.1)
    assert [steps.value(index) for index in range(steps.count)] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert steps.holds(0.1 + 0.2)
    assert not steps.holds(0.25)
    assert not steps.holds(0.8)
    assert not steps.holds("0.3")


def test_values_can_be_replaced_in_a_copy_and_nowhere_else() -> None:
    shipped = config.load(FULL)
    assert shipped.with_values({"model.depth": 32}).model.depth == 32
    with pytest.raises(ConfigError, match="depth must be 6n"):
        shipped.with_values({"model.depth": 33})
    assert shipped.model.depth == 20
    with pytest.raises(ValueError, match="frozen"):
        shipped.model.depth = 32  # type: ignore[misc]


def test_the_schema_in_the_repository_is_the_one_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schema"]) == 0
    assert capsys.readouterr().out == (REPOSITORY / "params.schema.json").read_text()


def test_the_schema_describes_every_key() -> None:
    content = json.loads(config.schema())
    forms = [form for section in content["$defs"].values() for form in section.get("anyOf", [section])]
    described = [form["properties"] for form in forms if "properties" in form]
    assert len(described) == len(content["$defs"]) == 10
    assert all(key["description"] for keys in described for key in keys.values())


def test_the_schema_offers_the_keys_that_may_be_searched_and_no_others() -> None:
    offered = json.loads(config.schema())["properties"]["space"]["propertyNames"]["anyOf"][0]["enum"]
    assert "train.learning_rate" in offered
    assert not {"train.seed", "train.epochs", "data.name", "tune.trials"} & set(offered)


def test_written_values_change_their_lines_alone_and_comments_stay_in_their_column(tmp_path: Path) -> None:
    path = write(tmp_path, ("schedule: one_cycle  ", "schedule: 'one_cycle'"), ("budget: null  ", "budget:       "))
    path.write_text(
        path.read_text().replace("null: 0.4 per trial if the scheduler pauses, else no limit", "null: no limit")
    )
    before = path.read_text().splitlines()
    values = {
        "train.learning_rate": 0.31,
        "train.weight_decay": 0.00005,
        "train.schedule": "cosine",
        "model.width": 8,
        "augment.policy": "flip",
        "train.label_smoothing": 0.01234567890123,
        "tune.budget": 20.5,
    }
    config.write_values(path, values)
    changed = {
        old.split(":")[0].strip(): new
        for old, new in zip(before, path.read_text().splitlines(), strict=True)
        if old != new
    }
    assert changed == {
        "learning_rate": "  learning_rate: 0.31      # the schedule's highest",
        "weight_decay": "  weight_decay: 0.00005    # 0 to 1: of weights, never of norms and biases",
        "schedule": "  schedule: 'cosine'       # one_cycle, cosine, wsd (warm-up, stable, decay), step, constant",
        "width": "  width: 8                 # channels of the first stage (papers: 16; resnet18 to vgg19: 64)",
        "policy": "  policy: flip             # none, flip, crop_flip, crop_flip_cutout",
        "label_smoothing": "  label_smoothing: 0.01234567890123 # 0 to 1: share of the target spread over all classes",
        "budget": "  budget: 20.5             # full trainings; null: no limit",
    }
    settings = config.load(path)
    assert {name: (settings.values() | {"tune.budget": settings.tune.budget})[name] for name in values} == values


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0005, "0.0005"), (5e-05, "0.00005"), (1.25e-06, "0.00000125"), (5e-09, "5.0e-09"), (1.0, "1.0"), (1, "1")],
)
def test_a_number_is_written_as_a_person_would(tmp_path: Path, value: float, written: str) -> None:
    path = write(tmp_path)
    config.write_values(path, {"tune.budget": value})
    assert f" budget: {written} " in path.read_text()
    assert config.load(path).tune.budget == value


def test_values_of_tune_first_can_be_written(tmp_path: Path) -> None:
    path = write(tmp_path, ("first: []", "first: [{model.depth: 26}]"))
    config.write_values(path, {"model.depth": 26})
    config.check_search(config.load(path))


@pytest.mark.parametrize("values", [{"train.learning_rat": 0.1}, {"train.learning_rate": 5.0}, {"model.depth": 21}])
def test_values_that_would_not_be_sound_are_not_written(tmp_path: Path, values: dict[str, float]) -> None:
    path = write(tmp_path)
    with pytest.raises(ConfigError, match=r"wrong in .*params\.yaml with the values to write"):
        config.write_values(path, {"train.momentum": 0.5} | values)
    assert path.read_text() == FULL.read_text()


def test_a_value_with_an_anchor_is_left_to_a_person(tmp_path: Path) -> None:
    path = write(tmp_path, ("width: 16 ", "width: &w 16 "), ("batch_size: 128 ", "batch_size: 128 "))
    path.write_text(path.read_text().replace("trials: 50 ", "trials: *w "))
    before = path.read_text()
    with pytest.raises(ConfigError, match="anchors"):
        config.write_values(path, {"tune.trials": 30})
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["params.yaml"]


def test_the_command_checks_the_file_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ("epochs: 20", "epochs: 0"))
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "train.epochs must be at least 1, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({"model.depth": [20, 21]}, "study.depth: space.model.depth holds a value that model.depth can't have"),
        ({"model.dept": [20]}, "study.depth: space.model.dept is not a key; did you mean space.model.depth?"),
        (
            {"train.learning_rate": {"low": 0.1, "high": 0.3}},
            "study.depth: tune.sampler is grid, for which space.train.learning_rate needs a step or choices",
        ),
        ({"model.depth": [26, 32]}, "study.depth: model.depth is 20, outside space.model.depth (26 or 32)"),
    ],
)
def test_a_bad_grid_is_an_error_of_the_file(grid: dict[str, Any], sentence: str) -> None:
    content = config.read_yaml(FULL)
    content["study"]["depth"]["space"] = grid
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        config.parse(content, {}, "params.yaml")


def test_a_grid_takes_the_place_of_the_space_and_is_searched_whole() -> None:
    found = config.grid(config.load(FULL), "depth")
    assert list(found.space) == ["model.family", "model.depth"]
    assert (found.tune.sampler, found.tune.scheduler, found.tune.confirm) == ("grid", "none", 0)
    with pytest.raises(ConfigError, match=r"study\.width is not a grid of params\.yaml; there are depth"):
        config.grid(config.load(FULL), "width")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"model.family": "speed", "model.depth": 10},
            "model.depth must be 3n+2 for speed (nearest: 8 and 11), got 10",
        ),
        ({"model.family": "plain", "model.depth": 5}, "model.depth must be 6n+2 for plain (nearest: 8 and 14), got 5"),
        ({"augment.mixup": 3.0}, "augment.mixup must be at most 2.0, got 3.0"),
        ({"train.folds": 1}, "train.folds must be at least 2, got 1"),
        ({"train.hard_share": 0.7}, "train.hard_share is gone: it brought nothing when it was measured"),
    ],
)
def test_a_value_that_its_family_or_method_can_t_have_gets_its_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        config.load(FULL, values)


def test_a_searched_depth_must_fit_all_families_that_it_can_occur_with() -> None:
    both = {"space.model.family": ["resnet", "speed"], "space.model.depth": [8, 11]}
    with pytest.raises(ConfigError, match=re.escape("model.depth must be 6n+2 for resnet (nearest: 8 and 14), got 11")):
        config.load(FULL, both)
    beside_speed = {"choices": [8, 11], "when": {"model.family": ["speed"]}}
    config.load(FULL, both | {"space.model.depth": beside_speed})


def test_a_file_of_an_older_version_loads_if_its_keys_that_are_gone_had_no_effect(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = FULL.read_text().replace("  dropout: 0.0", "  halving: late\n  dropout: 0.0")
    path.write_text(
        text.replace("  ema: 0.95", "  hard_share: 1.0\n  hard_from: 0.3\n  convolutions: auto\n  ema: 0.95")
    )
    assert config.load(path) == config.load(FULL)
    path.write_text(text.replace("halving: late", "halving: early"))
    with pytest.raises(ConfigError, match=r"model\.halving is gone: .* remove it"):
        config.load(path)


def test_weights_that_git_does_not_track_are_found_by_an_experiment_in_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, home = tmp_path / "copy", tmp_path / "home"
    copy.mkdir()
    (home / "weights").mkdir(parents=True)
    (home / "weights" / "own.pth").write_bytes(b"weights")
    monkeypatch.setenv("DVC_ROOT", str(home))  # what DVC sets for --temp and --queue
    monkeypatch.chdir(copy)
    model = config.load(REPOSITORY / "params.yaml").with_values(
        {"model.family": "torchvision", "model.weights": "weights/own.pth"}
    )
    assert config.weights_file("weights/own.pth") == home / "weights" / "own.pth"
    assert config.weights_digest(model.model) == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(ConfigError, match=f"there is no file {copy}/none.pth"):
        config.weights_file("none.pth")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("begin", "middle"), [("<<<<<<< HEAD", ""), ("<<<<<<< ours", "||||||| 1a2b3c4\n  epochs: 9\n")]
)
def test_a_merge_conflict_is_named_with_its_lines(tmp_path: Path, begin: str, middle: str, end: str) -> None:
    path = tmp_path / "params.yaml"
    text = f"data:\n  name: digits\ntrain:\n{begin}\n  epochs: 20\n{middle}=======\n  epochs: 30\n>>>>>>> branch\n"
    path.write_bytes(text.replace("\n", end).encode())
    lines = "4, 6, 8, 10" if middle else "4, 6, 8"
    with pytest.raises(ConfigError, match=rf"{path} holds both sides of a merge conflict .* in line {lines}\)"):
        config.load(path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("space", "space is a section: set its keys one by one, as in space.train.learning_rate={low"),
        ("train", "train is a section: set its keys one by one, as in train.seed=..."),
        ("tune", "tune is a section: set its keys one by one, as in tune.seed=..."),
        ("study", "study is a section, which can't be set: write the grid into the file"),
    ],
)
def test_a_section_is_not_set_as_a_whole(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(FULL, {name: {"train.learning_rate": [0.1]}})
    (line,) = str(caught.value).splitlines()[1:]
    assert line.strip().startswith(sentence)


@pytest.mark.parametrize("mixed", [False, True])
def test_writing_keeps_the_ends_of_all_lines(tmp_path: Path, mixed: bool) -> None:
    path = tmp_path / "params.yaml"
    text = FULL.read_bytes().replace(b"\n", b"\r\n")
    if mixed:
        text = text.replace(b"\r\n", b"\n", 5)
    path.write_bytes(text)
    config.write_values(path, {"train.momentum": 0.5, "train.head_learning_rate": 0.25, "augment.flip": "alternating"})
    written = path.read_bytes()
    assert written.count(b"\r\n") == text.count(b"\r\n")
    assert written.count(b"\n") == text.count(b"\n")
    assert config.load(path).train.head_learning_rate == 0.25
    changed = [new for old, new in zip(text.split(b"\n"), written.split(b"\n"), strict=True) if old != new]
    assert len(changed) == 3


def test_the_values_of_a_trial_are_checked_and_give_what_with_values_gives() -> None:
    shipped = config.load(REPOSITORY / "params.yaml")
    values = {"train.learning_rate": 0.2, "model.depth": 8, "train.seed": 5}
    assert shipped.of_trial(values) == shipped.with_values(values)
    with pytest.raises(ConfigError, match=r"model\.depth"):
        shipped.of_trial({"model.depth": 33})
