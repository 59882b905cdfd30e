"""The epochs of a trial on disk: epochs.jsonl in its folder, a line per epoch."""

import json
from contextlib import suppress
from pathlib import Path

from pipeline.records import Epoch

FILE = "epochs.jsonl"


def append_epoch(folder: Path, epoch: Epoch) -> None:
    line = "\n" + json.dumps(vars(epoch))  # the newline comes first, after a line that a kill may have torn
    try:
        file = (folder / FILE).open("a", encoding="utf-8")
    except FileNotFoundError:  # the owner before was on another machine
        folder.mkdir(parents=True)
        file = (folder / FILE).open("a", encoding="utf-8")
    with file:
        file.write(line)


def read_epochs(folder: Path) -> dict[int, Epoch]:
    """The epochs in a trial's folder, by number; none if the file is missing."""
    found = {}
    with suppress(FileNotFoundError), (folder / FILE).open(encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError, TypeError):  # a line that a kill tore
                epoch = Epoch(**json.loads(line))
                found[epoch.number] = epoch
    return dict(sorted(found.items()))
