"""The epochs of a trial on disk: epochs.jsonl in its folder, a line per epoch."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pipeline.records import Epoch

FILE = "epochs.jsonl"


def append_epoch(folder: Path, epoch: Epoch) -> None:
    folder.mkdir(parents=True, exist_ok=True)  # the owner before may have been on another machine
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(asdict(epoch)))  # the newline comes first, after a line that a kill may have torn


def read_epochs(folder: Path) -> dict[int, Epoch]:
    """The epochs in a trial's folder, by number; none if the file is missing."""
    found = {}
    with suppress(FileNotFoundError), (folder / FILE).open(encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError, TypeError):  # a line that a kill tore
                epoch = Epoch(**json.loads(line))
                found[epoch.number] = epoch
    return dict(sorted(found.items()))
