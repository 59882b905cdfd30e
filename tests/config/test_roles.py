import pytest
from places import REPOSITORY

from pipeline import config
from pipeline.config.loading import AS_GRID
from pipeline.config.names import legal_names

KEYS = list(config.load(REPOSITORY / "params.yaml").values())


def test_every_key_has_a_role() -> None:
    for name in legal_names():
        answers = config.decides_training(name), config.is_of_the_machine(name), config.decides_scoring(name)
        assert sum(answers) == (name.partition(".")[0] in ("model", "augment", "train", "evaluate")), name


def test_the_keys_that_decide_a_training_are_those_of_model_augment_and_train_without_the_machine() -> None:
    decide = {key for key in KEYS if key.startswith(("model.", "augment.", "train."))}
    machine = {"train.device", "train.threads"}
    assert {key for key in KEYS if config.is_of_the_machine(key)} == machine
    assert {key for key in KEYS if config.decides_training(key)} == decide - machine
    assert {key for key in KEYS if config.decides_scoring(key)} == {key for key in KEYS if key.startswith("evaluate.")}


def test_a_search_may_vary_all_that_decides_a_training_but_for_a_few_keys() -> None:
    split = ("folds", "validation", "validation_share", "validation_seed")
    fixed = {f"train.{key}" for key in ("seed", "epochs", "precision", *split)}
    assert set(config.searchable()) == {key for key in KEYS if config.decides_training(key)} - fixed
    assert all(config.why_not_searchable(key) for key in fixed)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("model.width", None),
        ("train.seed", "luck is no hyperparameter"),
        ("train.precision", "trials in different precisions don't compare"),
        ("train.threads", "it describes the machine"),
        ("tune.trials", "it describes a search"),
        ("space.model.width", "it describes a search"),
        ("study.depth", "it describes a search"),
        ("data.anything", "the same images"),
        ("train.anything", None),
        ("anything", None),
    ],
)
def test_what_can_t_be_searched_has_a_reason(name: str, why: str | None) -> None:
    found = config.why_not_searchable(name)
    assert found is None if why is None else why in str(found)


def test_a_grid_fixes_what_it_sets_and_what_has_no_effect_on_it() -> None:
    fixed = {name for name in legal_names() if config.fixed_in_grid(name)}
    assert set(AS_GRID) < fixed
    assert fixed - set(AS_GRID) == {"tune.trials", "tune.first_rung", "tune.reduction_factor", "tune.confirm_seeds"}
