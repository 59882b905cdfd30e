import pytest

from pipeline.config import Config
from pipeline.training.schedules import learning_rate_factor


def factors(settings: Config, schedule: str, steps: int = 100, **values: float) -> list[float]:
    """Of all steps and of the one after the last."""
    train = settings.with_values(
        {"train.schedule": schedule} | {f"train.{key}": value for key, value in values.items()}
    ).train
    return [learning_rate_factor(train, step, steps) for step in range(steps + 1)]


def test_one_cycle_rises_from_a_25th_along_a_cosine_and_falls_along_one_to_nothing(settings: Config) -> None:
    cycle = factors(settings, "one_cycle", warmup=0.25)
    assert (round(cycle[0], 9), cycle[25], round(cycle[100], 9)) == (0.04, 1.0, 0.0)
    assert cycle[:26] == sorted(cycle[:26])
    assert cycle[25:] == sorted(cycle[25:], reverse=True)


def test_one_cycle_without_warm_up_is_a_cosine(settings: Config) -> None:
    assert factors(settings, "one_cycle", warmup=0.0) == factors(settings, "cosine", warmup=0.0)


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "step", "constant"])
def test_the_others_rise_linearly_from_the_first_steps_part_to_all(settings: Config, schedule: str) -> None:
    rise = factors(settings, schedule, warmup=0.2)[:20]
    assert rise == pytest.approx([(step + 1) / 20 for step in range(20)])


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "step", "constant"])
def test_without_warm_up_the_others_begin_at_the_full_rate(settings: Config, schedule: str) -> None:
    assert factors(settings, schedule, warmup=0.0)[0] == 1.0
    assert factors(settings, schedule, steps=3, warmup=0.1)[0] == 1.0


def test_cosine_falls_to_nothing_over_all_that_the_warm_up_leaves(settings: Config) -> None:
    cosine = factors(settings, "cosine", warmup=0.0)
    assert (cosine[0], round(cosine[50], 9), round(cosine[100], 9)) == (1.0, 0.5, 0.0)
    warmed = factors(settings, "cosine", warmup=0.2)
    assert (warmed[20], round(warmed[60], 9), round(warmed[100], 9)) == (1.0, 0.5, 0.0)
    assert warmed[20:] == sorted(warmed[20:], reverse=True)


def test_wsd_stays_until_it_falls_linearly_over_the_cooldown(settings: Config) -> None:
    stable = factors(settings, "wsd", warmup=0.1, cooldown=0.4)
    assert set(stable[9:61]) == {1.0}
    assert stable[60:] == pytest.approx([1 - step / 40 for step in range(41)])
    assert factors(settings, "wsd", warmup=0.0, cooldown=1.0)[50] == 0.5


def test_step_falls_at_a_half_and_at_three_quarters(settings: Config) -> None:
    steps = factors(settings, "step", warmup=0.1, step_factor=0.2)
    assert set(steps[9:50]) == {1.0}
    assert set(steps[50:75]) == {0.2}
    assert steps[75:] == pytest.approx([0.04] * 26)


def test_constant_stays(settings: Config) -> None:
    assert set(factors(settings, "constant", warmup=0.1)[9:]) == {1.0}


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "wsd", "step", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 0.95])
def test_no_step_of_any_schedule_stands_still_or_is_faster_than_the_learning_rate(
    settings: Config, schedule: str, warmup: float
) -> None:
    assert all(0 < factor <= 1 for factor in factors(settings, schedule, steps=37, warmup=warmup, cooldown=0.5)[:-1])
