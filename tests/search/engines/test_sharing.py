import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipeline.search.engines.sharing import Room

pytest.importorskip("fcntl")


class Visitor(threading.Thread):
    """Is in the room from its turn until it is told to leave."""

    def __init__(self, room: Room, *, alone: bool = False) -> None:
        super().__init__(daemon=True)
        self.room, self.alone = room, alone
        self.waits, self.inside, self.leave = threading.Event(), threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with self.room.turn(alone=self.alone, clear=self.waits.set):
            self.inside.set()
            self.leave.wait(30)

    def left(self) -> None:
        self.leave.set()
        self.join(30)


def test_several_are_in_the_room_side_by_side_and_one_alone_waits_for_all_of_them(tmp_path: Path) -> None:
    room = Room(tmp_path / "study" / "gpu")
    beside = [Visitor(room), Visitor(room)]
    assert all(visitor.inside.wait(30) for visitor in beside)
    assert not any(visitor.waits.is_set() for visitor in beside)
    alone = Visitor(room, alone=True)
    assert alone.waits.wait(30)
    late = Visitor(room)
    assert late.waits.wait(30)
    beside[0].left()
    assert beside[0].waits.is_set(), "who leaves clears up for the one that waits"
    assert not alone.inside.wait(0.1)
    beside[1].left()
    assert alone.inside.wait(30)
    assert not late.inside.wait(0.1), "who came later waits, or those who come and go would never let one be alone"
    alone.left()
    assert late.inside.wait(30)
    late.left()


def test_what_is_not_shared_needs_no_turn() -> None:
    with Room(None).turn(alone=True), Room(None).turn(alone=True, clear=lambda: pytest.fail("it waits")):
        pass


def stays(path: Path, inside: "multiprocessing.synchronize.Event") -> None:
    with Room(path).turn(alone=True):
        inside.set()
        time.sleep(60)


def test_a_killed_process_leaves_the_room(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    inside = spawn.Event()
    process = spawn.Process(target=stays, args=(tmp_path / "gpu", inside), daemon=True)
    process.start()
    assert inside.wait(30)
    visitor = Visitor(Room(tmp_path / "gpu"))
    assert visitor.waits.wait(30)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert visitor.inside.wait(30)
    visitor.left()
