import io
import shlex
from collections.abc import Sequence

import pytest
from optuna.storages import InMemoryStorage
from rich.console import Console

from pipeline.config import Choices, Config
from pipeline.files import Project
from pipeline.outcome import Outcome
from pipeline.search.space.space import Space
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.spec import StudySpec
from pipeline.search.studies.winner import Winner
from pipeline.tune import parsed

SPACE = Space({"model.width": Choices(choices=(4, 8))}, {"model.width": 4})


def ended(outcome: Outcome, name: str = "quick") -> tuple[Ledger, Ledger]:
    """A search with one trial that ended so, and a confirmation without any."""
    storage = InMemoryStorage()
    search = Ledger(storage, name)
    trial = search.enter({"model.width": 4}, SPACE.distributions, 1, seed=1)
    search.score(trial, 1, 0.5)
    search.end(trial, outcome)
    return search, search.beside(".confirmation")


def printed(winner: Winner, search: Ledger, confirmation: Ledger) -> str:
    assert isinstance(winner.console.file, io.StringIO)
    winner.print_summary(search, confirmation)
    return winner.console.file.getvalue()


@pytest.fixture
def spec(project: Project, settings: Config) -> StudySpec:
    return StudySpec.of(project, "quick", settings.with_values({"tune.trials": 7}))


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["train.epochs=3"],
        ["space.augment.policy=[flip, none]", "tune.first=[{model.width: 4}]", "train.head_learning_rate=null"],
        ["model.weights=a file's name.pth", "tune.confirm=0"],
    ],
)
@pytest.mark.parametrize("name", ["main", "quick"])
def test_the_next_command_has_all_options_without_which_it_would_not_find_the_study(
    spec: StudySpec, given: Sequence[str], name: str
) -> None:
    console = Console(file=io.StringIO(), width=80, markup=False)
    text = printed(Winner(spec, False, console, given), *ended(Outcome.FINISHED, name))
    (line,) = (line for line in text.splitlines() if "pipeline.tune" in line)
    arguments = parsed(shlex.split(line.partition("   writes")[0])[3:])
    assert arguments.set == list(given)
    assert (arguments.study, arguments.trials, arguments.apply) == (name, 7, True)


def test_a_space_that_is_exhausted_is_not_said_to_have_more_trials(project: Project, settings: Config) -> None:
    console, (search, _) = Console(file=io.StringIO()), ended(Outcome.FINISHED)
    values = settings.model_dump() | {"space": {"model.width": [4]}}
    exhausted = StudySpec.of(project, "quick", Config.model_validate(values))
    assert "larger --trials" not in Winner(exhausted, False, console).already_done(search)
    assert "all configurations of its space (1) are tried" in Winner(exhausted, False, console).already_done(search)
