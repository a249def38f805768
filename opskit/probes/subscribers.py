"""Subscribers: listen to event streams and WebSockets while objects are created."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence

from opskit.checks import Check
from opskit.config.strain import LoadSettings
from opskit.probes.probe import Inconclusive, WrongAnswer, faultless
from opskit.probes.session import Session, Target
from opskit.threads import Thread

_PAUSE_SECONDS = 0.1


class _Subscriber:
    """One connection with a thread, and the marks in the events that came over it."""

    def __init__(self, name: str, mark: re.Pattern[str]) -> None:
        self.name, self.seen = name, set[str]()
        self.end, self.is_lost = "", False
        self.wanted: set[str] | None = None
        self._mark = mark

    @property
    def has_begun(self) -> bool:
        """Whether it is known to be subscribed, or has ended."""
        return bool(self.seen or self.end)

    def listen(self, follow: Callable[[_Subscriber], None]) -> None:
        """Hear until all that is wanted was seen, or nothing comes any more."""
        try:
            follow(self)
        except Inconclusive as error:
            self.end, self.is_lost = str(error), True
        except WrongAnswer as error:
            self.end = error.observed

    def hear(self, event: Callable[[], str]) -> None:
        """Take events."""
        while self.wanted is None or not self.wanted <= self.seen:
            self.seen |= set(self._mark.findall(event()))


class Subscribers:
    """All of them; each has a thread and a connection of its own."""

    def __init__(self, asked: LoadSettings, target: Target, mark: re.Pattern[str]):
        self._asked, self._target = asked, target
        self._threads: list[Thread] = []
        self._each = [
            _Subscriber(f"{path} ({number})", mark)
            for path in (*asked.streams, *asked.sockets)
            for number in range(1, asked.subscribers + 1)
        ]

    def begin(self, create: Callable[[], object]) -> None:
        """Listen; `create` is called until each has seen something.

        That shows that they are subscribed: services may answer before they are.
        """
        follow = [self._stream] * len(self._asked.streams)
        follow += [self._socket] * len(self._asked.sockets)
        paths = [*self._asked.streams, *self._asked.sockets]
        for number, each in enumerate(self._each):
            kind = number // self._asked.subscribers
            self._threads.append(
                Thread(each.listen, follow[kind](paths[kind]), name=each.name)
            )
        end = time.monotonic() + self._target.timeout_seconds
        while not all(each.has_begun for each in self._each):
            if time.monotonic() > end or self._target.stopped.wait(_PAUSE_SECONDS):
                break
            create()

    def finish(self, accepted: Sequence[str], create: Callable[[], object]) -> None:
        """Wait until each has seen all of that, or nothing comes any more."""
        for each in self._each:
            each.wanted = set(accepted)
        if self._threads:
            create()  # wakes those that have
        end = time.monotonic() + 2 * self._target.timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def check(self) -> Check:
        """Return the check that each was sent all events.

        Raises:
            Inconclusive: connections were lost, or nothing was created.
        """
        missing = {each: len((each.wanted or set()) - each.seen) for each in self._each}
        short = [each for each, number in missing.items() if number]
        if not self._each[0].wanted:
            raise Inconclusive("nothing was created")
        if short and all(each.is_lost for each in short):
            raise Inconclusive(f"{short[0].name}: {short[0].end}")
        return faultless(
            f"{len(self._each[0].wanted)} events for each of {len(self._each)} "
            "subscribers",
            (
                f"{each.name} misses {missing[each]} ({each.end or 'it still waits'})"
                for each in short
            ),
        )

    def _stream(self, path: str) -> Callable[[_Subscriber], None]:
        def follow(subscriber: _Subscriber) -> None:
            with (
                Session(self._target) as session,
                session.stream(path, key=self._asked.key) as stream,
            ):
                if stream.status != 200:
                    raise WrongAnswer(
                        expected="200", observed=f"status {stream.status}"
                    )
                subscriber.hear(stream.event)

        return follow

    def _socket(self, path: str) -> Callable[[_Subscriber], None]:
        def follow(subscriber: _Subscriber) -> None:
            with (
                Session(self._target) as session,
                session.websocket(path, key=self._asked.key) as socket,
            ):
                if self._asked.subscribe:
                    socket.say(self._asked.subscribe)
                subscriber.hear(lambda: json.dumps(socket.hear()))

        return follow
