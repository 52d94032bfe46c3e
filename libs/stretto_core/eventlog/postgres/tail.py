"""Following one partition in PostgreSQL: one library subscription, shared by all who follow.

Owns the subscription's supervision and a window of the newest events. The first follower starts
it, the last one ends it. A follower behind the window reads the log itself until it meets the
window; one that is slow only falls out of the window, and nothing is buffered for it. A
notification is a hint, the position is the truth: the log is also looked at slowly besides.
Nobody looks at a log while no follower waits for more: followers that rest are left to rest.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

from eventsourcing.persistence import Notification, PersistenceError
from eventsourcing.postgres import PostgresSubscription
from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier

from stretto_core.errors import Internal
from stretto_core.eventlog.port import StoreDown
from stretto_core.eventlog.postgres.recorder import PartitionRecorder
from stretto_core.eventlog.recorded import Page, StoredEvent
from stretto_core.ids import StreamId

_WINDOW_EVENTS_MAX = 10_000
_WINDOW_BYTES_MAX = 16 * 1024 * 1024
_BATCH_EVENTS_MIN = 500
_LISTEN_SLICE_S = 0.1
_PULL_PACE_S = 0.02
"""Between two looks at a log that grows: a look costs both sides more than the few events of one
commit. The first commit after a rest is looked at at once."""
_RESTART_DELAY_S = 0.05
_RESTART_DELAY_S_MAX = 1.0

ReadAfter = Callable[[int], Awaitable[Page]]


class _Subscription(PostgresSubscription):
    """The library's subscription, given out in batches, and polling besides listening."""

    poll_interval_s = 2.0

    def __init__(self, recorder: PartitionRecorder, gt: int, wanted: threading.Event) -> None:
        self._stopping = threading.Event()  # The library's threads start with its own part.
        self._wanted = wanted
        super().__init__(recorder, gt=gt)

    def stop(self) -> None:
        """End the subscription; its threads end within a fraction of a second."""
        super().stop()
        self._stopping.set()

    def next_batch(self) -> list[Notification]:
        """Wait for events and return all that were pulled together. Raises StopIteration."""
        first = next(self)
        rest = self._notifications[self._notifications_index :]
        self._notifications_index = len(self._notifications)
        return [first, *rest]

    def _wait_until_wanted(self, connection: Connection[DictRow]) -> None:
        # In slices: another subscription of the same log may take the word away that ends this one.
        while not self._wanted.wait(_LISTEN_SLICE_S) and not self._has_been_stopped:
            # Hints that nobody takes fill the one queue of the server: then no commit may send any.
            while list(connection.notifies(timeout=0)):
                pass

    def _listen(self) -> None:
        try:
            with self._recorder.datastore.get_connection() as connection:
                channel = Identifier(self._recorder.channel_name)
                connection.execute(SQL("LISTEN {}").format(channel))
                pull_at = time.monotonic()  # What committed before LISTEN took effect sent no hint.
                while not self._has_been_stopped and not self._thread_error:
                    notified = list(connection.notifies(timeout=_LISTEN_SLICE_S, stop_after=1))
                    if notified or time.monotonic() >= pull_at:
                        pull_at = time.monotonic() + self.poll_interval_s
                        self._wait_until_wanted(connection)
                        self._has_been_notified.set()
                        self._stopping.wait(_PULL_PACE_S)
                connection.execute("UNLISTEN *")  # It goes back to the pool.
        except BaseException as error:
            if self._thread_error is None:
                self._thread_error = error
            self.stop()


class Tail:
    """The newest events of one partition, and a wake-up when there are more.

    read_after: reads the log's page after a position.
    """

    def __init__(
        self, recorder: PartitionRecorder, read_after: ReadAfter, *, poll_interval_s: float
    ) -> None:
        self._recorder = recorder
        self._read_after = read_after
        self._poll_interval_s = poll_interval_s
        self._loop = asyncio.get_running_loop()
        self._followers = 0
        self._follower: _Follower | None = None
        self._threads: list[threading.Thread] = []
        self._window: deque[tuple[StoredEvent, ...]] = deque()
        self._window_events = 0
        self._window_bytes = 0
        self._window_after: int | None = None  # None until the subscription has begun.
        self._arrived = asyncio.Event()
        self.wanted = threading.Event()
        """Set while a follower has all there is and waits; of the loop's thread."""
        self._failure: Exception | None = None
        self._closed = False

    async def follow(self, after_position: int) -> AsyncGenerator[tuple[StoredEvent, ...]]:
        """Yield batches after a position: from the log until the window is met, then from it."""
        self._followers += 1
        try:
            if self._follower is None:
                self._follower = _Follower(self, self._recorder, self._poll_interval_s)
                self._threads = [one for one in self._threads if one.is_alive()]
                self._threads.append(self._follower.thread)
            while not self._closed:
                if self._failure is not None:
                    raise Internal("following the log failed") from self._failure
                arrived = self._arrived  # Before looking: none may arrive unseen in between.
                batch = self._from_window(after_position)
                if batch is None:
                    batch = await self._from_log(after_position)
                if not batch:
                    self.wanted.set()
                    await arrived.wait()
                    continue
                after_position = batch[-1].position
                yield batch
        finally:
            self._followers -= 1
            if self._followers == 0:
                self._stop()

    async def close(self) -> None:
        """End the subscription and every follower's loop; returns when no thread is left."""
        self._closed = True
        self._stop()
        self._wake()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def begin(self, position: int, follower: _Follower) -> None:
        """From the subscription's thread: what follows comes after `position`, without a gap."""
        self._loop.call_soon_threadsafe(self._begin, position, follower)

    def publish(self, batch: tuple[StoredEvent, ...], follower: _Follower) -> None:
        """From the subscription's thread: the next events."""
        self._loop.call_soon_threadsafe(self._publish, batch, follower)

    def fail(self, error: Exception, follower: _Follower) -> None:
        """From the subscription's thread: it ended by a bug; every follower raises it."""
        self._loop.call_soon_threadsafe(self._fail, error, follower)

    def _begin(self, position: int, follower: _Follower) -> None:
        if follower is self._follower:
            self._window_after = position
            self._wake()

    def _fail(self, error: Exception, follower: _Follower) -> None:
        if follower is self._follower:
            self._failure = error
            self._wake()

    def _publish(self, batch: tuple[StoredEvent, ...], follower: _Follower) -> None:
        if follower is not self._follower:
            return  # Ended meanwhile; a later subscription makes its own window.
        self.wanted.clear()  # Who still waits after this batch says so again.
        self._window.append(batch)
        self._window_events += len(batch)
        self._window_bytes += sum(len(event.stored_bytes) for event in batch)
        while len(self._window) > 1 and (
            self._window_events > _WINDOW_EVENTS_MAX or self._window_bytes > _WINDOW_BYTES_MAX
        ):
            gone = self._window.popleft()
            self._window_after = gone[-1].position
            self._window_events -= len(gone)
            self._window_bytes -= sum(len(event.stored_bytes) for event in gone)
        self._wake()

    def _from_window(self, after_position: int) -> tuple[StoredEvent, ...] | None:
        """Return the next batch, () when there is none yet, None when the window begins later.

        What a follower has not taken yet comes together, up to a batch of the least size.
        """
        if self._window_after is None or after_position < self._window_after:
            return None
        parts: list[tuple[StoredEvent, ...]] = []
        for batch in reversed(self._window):  # Nearly always the last few.
            if batch[-1].position <= after_position:
                break
            parts.append(batch)
        found: list[StoredEvent] = []
        while parts and len(found) < _BATCH_EVENTS_MIN:
            found += (event for event in parts.pop() if event.position > after_position)
        return tuple(found)

    async def _from_log(self, after_position: int) -> tuple[StoredEvent, ...]:
        try:
            return (await self._read_after(after_position)).events
        except StoreDown:
            await asyncio.sleep(_RESTART_DELAY_S_MAX / 2)
            self._wake()
            return ()

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()

    def _stop(self) -> None:
        if self._follower is not None:
            self._follower.stop()
            self._follower = None
        self._window.clear()
        self._window_events = self._window_bytes = 0
        self._window_after = None
        self._failure = None


class _Follower:
    """The thread that keeps one library subscription alive and hands its batches to the tail."""

    def __init__(self, tail: Tail, recorder: PartitionRecorder, poll_interval_s: float) -> None:
        self._tail = tail
        self._recorder = recorder
        self._poll_interval_s = poll_interval_s
        self._stopped = threading.Event()
        self._subscription: _Subscription | None = None
        self.thread = threading.Thread(target=self._run, name="log-tail", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does within a fraction of a second."""
        self._stopped.set()
        if self._subscription is not None:
            self._subscription.stop()

    def _run(self) -> None:
        position: int | None = None
        delay_s = _RESTART_DELAY_S
        while not self._stopped.is_set():
            try:
                if position is None:
                    position = self._recorder.last_position()
                    self._tail.begin(position, self)
                for batch in self._batches(position):
                    position = batch[-1].position
                    delay_s = _RESTART_DELAY_S
                    self._tail.publish(batch, self)
            except PersistenceError:
                # A lost connection ends the library's subscription: begin again where it was.
                self._stopped.wait(delay_s)
                delay_s = min(delay_s * 2, _RESTART_DELAY_S_MAX)
            except Exception as error:
                self._tail.fail(error, self)
                return

    def _batches(self, after_position: int) -> Iterator[tuple[StoredEvent, ...]]:
        subscription = _Subscription(self._recorder, after_position, self._tail.wanted)
        subscription.poll_interval_s = self._poll_interval_s
        self._subscription = subscription
        with subscription:
            while not self._stopped.is_set():
                try:
                    batch = subscription.next_batch()
                except StopIteration:
                    return
                yield tuple(map(_stored_event, batch))


def _stored_event(notification: Notification) -> StoredEvent:
    return StoredEvent(
        position=notification.id,
        stream=StreamId(str(notification.originator_id)),
        version=notification.originator_version,
        type=notification.topic,
        stored_bytes=notification.state,
    )
