"""The thread that sends outboxes to MLflow, in the background, and retries while MLflow does not answer."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import TrackingError
from pipeline.tracking.delivery import Delivery, batch
from pipeline.tracking.failures import Refused, Unreachable
from pipeline.tracking.outbox import Held, Operation, Outbox
from pipeline.tracking.store import Store
from pipeline.tracking.timing import Timing

T = TypeVar("T")

HELD_AT_ONCE = 64
"""How many ended outboxes are held at most: each takes three open files, and a store that is away lets them pile up."""
MANY = 64
"""From so many open runs on the sender rests after each batch, for REST times the CPU time that the batch took. So it
leaves the process to its other threads, and what comes meanwhile makes larger batches."""
REST = 6.0
LONGEST_REST_S = 1.0


class Sender:
    """Sends the operations of its outboxes in order. The outbox goes first whose oldest operation has waited longest.

    It removes an outbox that has ended and is sent. If over HELD_AT_ONCE ended outboxes wait, it releases the further
    ones until their turn comes; another process may send them before.
    """

    def __init__(self, store: Store, timing: Timing, on_sent: Callable[[], None] = lambda: None) -> None:
        """`on_sent` is called, in the sender's thread, after each operation that was sent."""
        self._store = store
        self._timing = timing
        self._on_sent = on_sent
        self._delivery = Delivery(store)
        # Guards all fields below. Notified of work to do, and of an attempt that succeeded or failed.
        self._changed = threading.Condition()
        self._outboxes: dict[Path, Outbox] = {}
        self._waiting: dict[Path, Outbox] = {}
        """Those with operations to send. The first one has waited longest."""
        self._ended: set[Path] = set()
        """Those that are held although they have ended."""
        self._questions: list[tuple[Future[Any], Callable[[Delivery], Any]]] = []
        self.puts_off = False
        """Whether what is recorded survives a power cut only after `sync`."""
        self._unsynced: set[Outbox] = set()
        self._syncing = ThreadPoolExecutor(8, "sync")
        self._sending: Outbox | None = None
        self._making = False
        """Whether a model is being made of weights, which is no silence of the store."""
        self._thread: threading.Thread | None = None
        self._awaited = False
        """Whether a caller has waited for the first answer; only the first one does."""
        self._loaded = False
        self._connected = False
        self._refusal = ""
        """Why the store can't be used at all."""
        self._failures = 0
        """In a row, because the store did not answer."""
        self._attempts = 0
        self._complained: set[Path] = set()
        """Outboxes for which a refusal was printed; it is printed once for each."""
        self._stopped = False
        self._hurried = False
        """Whether to skip the next delay after a failure."""
        self._closing = False

    def start(self) -> None:
        """Connects to the store, or lets the thread retry it. Raises TrackingError if the store can't be used."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
                self._thread.start()
            # No timeout for importing MLflow and for creating a local database: both take seconds and end.
            self._changed.wait_for(lambda: self._loaded or self._refusal)
            if not self._awaited:
                timeout_s = None if self._store.database else self._timing.answer_s
                self._changed.wait_for(lambda: self._connected or self._refusal or self._failures > 1, timeout_s)
                self._awaited = True
            if self._refusal:
                raise TrackingError(f"MLflow can't record in {self._store}: {self._refusal}.")

    def open(self, folder: Path, *, new: bool = False, **content: Any) -> Outbox:
        """Opens or creates the outbox in `folder` and appends `open` to it. Raises Held, TrackingError.

        `new` says that MLflow has no such run.
        """
        with self._changed:
            outbox = self._outboxes.get(folder)
            if outbox and outbox.is_held:
                outbox.append("open", durable=not self.puts_off, **content)
                self._note(outbox)
                return outbox
        outbox = Outbox(folder, self._timing.holder_s)
        outbox.is_new = new and not outbox.opening
        outbox.append("open", durable=not self.puts_off, **content)
        self.add(outbox)
        return outbox

    def add(self, outbox: Outbox) -> None:
        if outbox.ended and not outbox.waiting:  # its process was killed before it could remove it
            outbox.remove()
            return
        with self._changed:
            self._outboxes[outbox.folder] = outbox
            if outbox.folder in self._waiting:  # that of another Outbox of the folder, which was released
                self._waiting[outbox.folder] = outbox
            self._note(outbox)

    def append(self, outbox: Outbox, operations: Sequence[Operation]) -> None:
        """Raises TrackingError if the disk is full."""
        outbox.append_all(operations, durable=not self.puts_off)
        with self._changed:
            self._note(outbox)

    def _note(self, outbox: Outbox) -> None:
        """Notes that operations were added to it."""
        if not outbox.waiting:  # the sender's thread was faster
            return
        self._waiting.setdefault(outbox.folder, outbox)
        if self.puts_off:
            self._unsynced.add(outbox)
        if outbox.ended and outbox is not self._sending:
            if len(self._ended) < HELD_AT_ONCE:
                self._ended.add(outbox.folder)
            else:
                outbox.close()
        self._changed.notify_all()

    def sync(self) -> None:
        """Makes all that was recorded survive a power cut. Raises TrackingError."""
        with self._changed:
            unsynced, self._unsynced = self._unsynced, set()
        # Many at once: file systems write the changes of several files together.
        list(self._syncing.map(Outbox.sync, unsynced))

    @property
    def folders(self) -> set[Path]:
        """Those of the outboxes that are not sent yet."""
        with self._changed:
            return set(self._outboxes)

    @property
    def waiting(self) -> int:
        """The number of operations that MLflow does not have yet."""
        with self._changed:
            return sum(outbox.waiting for outbox in self._waiting.values())

    def ask(self, question: Callable[[Delivery], T], default: T, wait_s: float | None = None) -> T:
        """The store's answer, or `default` if there is none within `wait_s` (else `answer_s`) seconds."""
        answer: Future[T] = Future()
        with self._changed:
            if not self._connected or self._failures:
                return default
            self._questions.append((answer, question))
            self._changed.notify_all()
        try:
            return answer.result(self._timing.answer_s if wait_s is None else wait_s)
        except (Unreachable, Refused, TimeoutError):
            return default

    def close(self, patience_s: float) -> list[Outbox]:
        """Waits until all is sent, but for no single step longer than `patience_s`. Then releases the outboxes.

        Returns those with unsent operations, which stay on disk.
        """
        try:
            self._wait(patience_s)
        finally:
            # Also if a second Ctrl-C ends the wait.
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            self._syncing.shutdown(wait=False)
            if self._thread:
                # Not for long: it may hang in a request. It uses no outbox any more, and ends with the process.
                self._thread.join(timeout=1)
            left = [outbox for outbox in self._outboxes.values() if outbox.waiting]
            for outbox in self._outboxes.values():
                if outbox.is_held:
                    outbox.close()
        return left

    def _wait(self, patience_s: float) -> None:
        with self._changed:
            self._hurried = self._closing = True
            self._changed.notify_all()
            begun, attempts = time.monotonic(), self._attempts
            while self._outboxes and not self._refusal:
                seen = self._attempts
                silent = self._failures > 1 or not (self._connected or self._store.database)
                if silent and self._attempts > attempts:
                    return
                rest_s = (self._timing.away_patience_s if silent else patience_s) - (time.monotonic() - begun)
                if not self._changed.wait_for(partial(self._moved, seen), max(rest_s, 0)) and not self._making:
                    return
                if not self._failures:
                    begun = time.monotonic()

    def _moved(self, attempts: int) -> bool:
        return self._attempts != attempts or bool(self._refusal)

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._connected and not self._next():
                    self._changed.wait_for(lambda: self._stopped or self._questions or self._next())
                    linger_s = self._timing.linger_s
                    self._changed.wait_for(lambda: self._stopped or self._questions or self._closing, linger_s)
                if self._stopped:
                    return
            try:
                self._attempt()
            except Unreachable as error:
                self._failed(str(error))
            except Exception as error:
                # The store refused the connection, or our code has a defect: in both cases this thread ends.
                reason = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
                with self._changed:
                    self._refusal = self._store.redacted(reason)
                    is_raised = not self._connected and self._failures < 2
                    self._changed.notify_all()
                if not is_raised:  # by `start`
                    say(f"MLflow can't record in {self._store}: {self._refusal}. Its records wait on disk.")
                return

    def _attempt(self) -> None:
        if not self._loaded:
            self._delivery.load()
            with self._changed:
                self._loaded = True
                self._changed.notify_all()
        if not self._connected:
            self._delivery.connect()
            with self._changed:
                self._connected = True
        while self._questions:
            answer, question = self._questions.pop(0)
            try:
                answer.set_result(question(self._delivery))
            except (Unreachable, Refused) as error:
                answer.set_exception(error)
        with self._changed:
            outbox = self._sending = self._next()
            operations = batch(outbox.peek()) if outbox else []
            self._making = bool(operations) and operations[0].kind == "weights"
        if outbox:
            began_s = time.thread_time()
            sent = self._deliver(outbox, operations)
            rest_s = min(LONGEST_REST_S, REST * (time.thread_time() - began_s))
            with self._changed:
                self._sending, self._making = None, False
                if self._stopped:
                    return
                outbox.sent(sent)
                if not outbox.waiting:
                    del self._waiting[outbox.folder]
                    if outbox.ended:
                        self._forget(outbox.folder)
                        outbox.remove()
                if len(self._outboxes) > MANY:
                    self._changed.wait_for(lambda: self._stopped or self._closing or self._questions, rest_s)
            for _ in range(sent):
                self._on_sent()
        with self._changed:
            failures, self._failures = self._failures, 0
            self._attempts += 1
            self._changed.notify_all()
        if failures > 1:
            say(f"MLflow at {self._store} answers again: what was kept is being sent.")

    def _deliver(self, outbox: Outbox, operations: Sequence[Operation]) -> int:
        """How many of `operations` are dealt with: all, or only the first one if MLflow refused the batch."""
        opening = outbox.opening or operations[0]
        try:
            self._delivery.deliver(outbox.folder, opening, operations, new=outbox.is_new)
        except Refused as error:
            if len(operations) > 1:
                # One at a time shows which operation it was.
                return self._deliver(outbox, operations[:1])
            self._refused(outbox, operations[0], str(error))
        finally:
            # A second attempt must search: the first one may have arrived although its answer did not.
            outbox.is_new = False
        return len(operations)

    def _next(self) -> Outbox | None:
        """The outbox that has waited longest; None if there is none, and after `close`, which released all."""
        if self._stopped:
            return None
        while self._waiting:
            folder, outbox = next(iter(self._waiting.items()))
            if outbox.is_held:
                return outbox
            try:
                reopened = Outbox(folder, wait_s=0)
            except Held:
                self._forget(folder)
                continue
            if reopened.waiting:
                self._outboxes[folder] = self._waiting[folder] = reopened
                return reopened
            self._forget(folder)
            reopened.remove()
        return None

    def _forget(self, folder: Path) -> None:
        del self._outboxes[folder]
        self._waiting.pop(folder, None)
        self._ended.discard(folder)
        self._complained.discard(folder)

    def _failed(self, reason: str) -> None:
        with self._changed:
            self._failures += 1
            self._attempts += 1
            self._sending, self._making = None, False
            failures = self._failures
            while self._questions:
                self._questions.pop()[0].set_exception(Unreachable(reason))
            self._changed.notify_all()
        if failures == 2:  # one failure is no news
            say(f"MLflow at {self._store} does not answer ({reason}): the work continues, its records wait on disk.")
        with self._changed:
            delays_s = self._timing.retry_delays_s
            delay_s = delays_s[min(failures, len(delays_s)) - 1]
            self._changed.wait_for(lambda: self._stopped or self._hurried, delay_s)
            self._hurried = False

    def _refused(self, outbox: Outbox, operation: Operation, reason: str) -> None:
        if outbox.folder not in self._complained:
            self._complained.add(outbox.folder)
            name = (outbox.opening or operation).content.get("name") or outbox.key
            say(f"MLflow did not take the {operation.kind} of the run {name}: {reason}")


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
