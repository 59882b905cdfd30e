from collections.abc import Iterator

import pytest
import torch

from pipeline.batches.batches import Batch
from pipeline.records import Epoch
from pipeline.training.progress import TrainingDisplay


class FourBatches:
    steps = 4

    def __len__(self) -> int:
        return 32

    def epoch(self, number: int) -> Iterator[Batch]:
        for _ in range(4):
            yield Batch(torch.zeros(8, 1, 2, 2), torch.zeros(8))


def test_the_bar_advances_within_an_epoch_and_starts_where_a_training_resumes() -> None:
    with TrainingDisplay(3, 32, done=1) as display:
        seen = [display.completed for _ in display.counting(FourBatches()).epoch(2)]
    assert seen == [32, 40, 48, 56]
    assert display.completed == 64


@pytest.mark.parametrize(("elapsed_s", "left"), [(4, "ETA 8 s"), (130, "ETA 4 min 20 s"), (7200, "ETA 4 h 00 min")])
def test_the_line_of_an_epoch_has_its_figures_and_the_remaining_time(
    capsys: pytest.CaptureFixture[str], elapsed_s: float, left: str
) -> None:
    with TrainingDisplay(3, 32, done=0) as display:
        display.show(Epoch(1, 0.1, 2.3, 0.1, 1.9, 0.375, 1234.4, elapsed_s))
    line = capsys.readouterr().out
    for text in (
        "epoch   1/3",
        "training 2.3000 10.00%",
        "validation 1.9000 37.50%",
        "1.00e-01",
        "1,234 images/s",
        left,
    ):
        assert text in line


def test_the_remaining_time_after_a_resume_is_that_of_the_present_pace(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingDisplay(10, 32, done=4, before_s=400) as display:
        display.show(Epoch(5, 0.1, 2.3, 0.1, 1.9, 0.375, 1234.4, 402))
        display.show(Epoch(6, 0.1, 2.3, 0.1, 1.9, 0.375, 1234.4, 406))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("ETA 10 s")
    assert second.endswith("ETA 12 s")


def test_the_last_line_has_no_remaining_time(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingDisplay(3, 32, done=2) as display:
        display.show(Epoch(3, 0.1, 2.3, 0.1, 1.9, 0.375, 1234.4, 10))
    assert "ETA" not in capsys.readouterr().out
