"""The checkpoints of a ledger's trials as their owner sees them: in the trials' folders, or at tune.checkpoints."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import config
from pipeline.search.engines.base import TargetReached
from pipeline.search.engines.store import MODEL, Store, StoreError, patiently
from pipeline.search.studies.ledger import Ledger
from pipeline.search.studies.trials import Trial, TrialSetup

_FAREWELL_S = 20.0
"""The longest wait for deletions as a phase ends. What is left then is deleted by the next start of the study."""


@dataclass
class Checkpoints:
    """Knows how large they are, and deletes them."""

    setup: TrialSetup
    _sizes: dict[int, int] = field(default_factory=dict)
    """Bytes of those of paused trials, by number."""
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "checkpoints"))
    """Deletes in a store, so that no worker waits for it. Its threads start when there is something to delete."""
    _deletions: list["Future[None]"] = field(default_factory=list)

    def look(self, trials: Sequence[Trial]) -> None:
        """Takes up what the owner before has left. Raises StoreError."""
        store = self.setup.store
        stored = patiently(store.sizes) if store else {}
        for trial in trials:
            if store is None:
                if trial.state == "paused":
                    self._sizes[trial.number] = _size(self.setup.folder_of(trial))
                elif trial.state != "running":
                    self.delete(trial)
            elif trial.state == "paused":
                self._sizes[trial.number] = stored.get(self.setup.name_of(trial), 0)
            elif trial.state != "running":
                if self.setup.name_of(trial) in stored:
                    self.delete(trial)
                if trial.state == "finished":  # the owner before may have been on another machine
                    self.fetch_model(trial)

    def weigh(self, trial: Trial, reached: TargetReached) -> None:
        """Notes the size of those of a trial that is paused."""
        in_store = self.setup.store is not None
        self._sizes[trial.number] = reached.checkpoint_bytes if in_store else _size(self.setup.folder_of(trial))

    def resumed(self, trial: Trial) -> None:
        """Counts those of a trial no more that a worker has."""
        self._sizes.pop(trial.number, None)

    @property
    def bytes(self) -> int:
        """Of all paused trials together."""
        return sum(self._sizes.values())

    def bytes_of(self, trial: Trial) -> int:
        return self._sizes[trial.number]

    def fetch_model(self, trial: Trial) -> None:
        """Puts the trial's model into its folder, where there is one in the store. Raises StoreError."""
        store, target = self.setup.store_of(trial), self.setup.folder_of(trial) / MODEL
        if store and not target.exists():
            patiently(lambda: store.fetch(MODEL, target))

    def delete(self, trial: Trial) -> None:
        """Deletes those of a trial that has ended. The other files of its folder stay."""
        self._sizes.pop(trial.number, None)
        if store := self.setup.store_of(trial):
            self._deletions = [one for one in self._deletions if not one.done()]
            self._deletions.append(self._pool.submit(_clear, store))
        for path in _checkpoints(self.setup.folder_of(trial)):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Waits a while for what is being deleted."""
        wait(self._deletions, _FAREWELL_S)
        self._pool.shutdown(wait=False, cancel_futures=True)


def store_of(address: str | None, search: Ledger) -> Store | None:
    """What a study has at tune.checkpoints; None without that key. Studies of several projects share an address."""
    return Store(address) / f"{search.name}-{search.about['key']}" if address else None


def address_of(search: Ledger, in_params: str | None) -> str | None:
    """tune.checkpoints of a study: as the last start of its owner was given it by --set, else as params.yaml has it."""
    found = in_params
    for setting in search.about.get("given", []):
        name, _, text = setting.partition("=")
        if name.strip() == "tune.checkpoints":
            value = config.parse_value(text, setting)
            found = None if value is None else str(value)
    return found


def _clear(store: Store) -> None:
    with suppress(StoreError):  # the next start of the study deletes it
        store.clear()


def _checkpoints(folder: Path) -> Iterator[Path]:
    """Of each fold of a trial the last checkpoint and the one before."""
    return folder.glob("checkpoint*.pt*")


def _size(folder: Path) -> int:
    """Bytes of a trial's checkpoints."""
    total = 0
    for path in _checkpoints(folder):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
