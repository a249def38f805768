"""Generator: sends requests when they are due, whether or not earlier ones are done."""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, cycle
from queue import Empty, LifoQueue

from opskit.config.smoke import SmokeSettings
from opskit.config.strain import MARK, LoadRequestSettings
from opskit.probes.probe import Inconclusive
from opskit.probes.sample import TOO_MANY, Sample
from opskit.probes.session import Session, Target
from opskit.probes.subscribers import Subscribers
from opskit.threads import Pool

_THREADS_MAX = 256
MEMORY = "memory"
_START_TIME = "process_start_time_seconds"
# A sample as Prometheus writes it: its name, its labels, its value.
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}\n]*\})? ([-+.\deE]+)", re.MULTILINE)


@dataclass(kw_only=True)
class Load:
    """What was seen during one load.

    `late` says how much later than it was due each request was handed on by this
    machine, `accepted` has the marks of what was created, `memory` what the metrics
    said of it after a quarter of the time and at the end.
    """

    sample: Sample
    subscribers: Subscribers
    late: list[float] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    memory: list[dict[str, float]] = field(default_factory=list)


class Generator:
    """Makes one load; its times count from when a request was due.

    A service that stalls holds up requests of others, which wait for a connection here.
    Times that count from when they were sent would leave that wait out. There are as
    many threads as answers that are waited for, each with a connection of its own.
    """

    def __init__(
        self, settings: SmokeSettings, target: Target, *, seconds_max: float
    ) -> None:
        self._settings, self._asked = settings, settings.load
        self._target, self._numbers = target, count()
        self._prefix = f"opskit-{secrets.token_hex(4)}-"
        self._idle: LifoQueue[Session] = LifoQueue()
        self._threads = math.ceil(self._asked.rate * seconds_max) + self._asked.spike
        due = self._due()
        mark = re.compile(rf"{self._prefix}\d+")
        self._shots = list(zip(due, self._requests(), strict=False))
        self.load = Load(
            sample=Sample(len(due)), subscribers=Subscribers(self._asked, target, mark)
        )

    def run(self) -> Load:
        """Make the load."""
        load = self.load
        try:
            load.subscribers.begin(self._create)
            load.accepted.clear()  # some have not seen these
            self._send_all()
            load.subscribers.finish(load.accepted, self._create)
        finally:
            while not self._idle.empty():
                self._idle.get().__exit__(None, None, None)
        return load

    def _due(self) -> list[float]:
        """Return when requests are due: evenly, and in bursts."""
        asked = self._asked
        seconds, every = asked.duration.total_seconds(), asked.spike_every
        even = [number / asked.rate for number in range(round(seconds * asked.rate))]
        bursts = range(1, math.ceil(seconds / every.total_seconds()))
        spikes = [number * every.total_seconds() for number in bursts]
        return sorted([*even, *spikes * asked.spike])

    def _requests(self) -> Iterator[LoadRequestSettings]:
        return cycle([e for e in self._asked.requests for _ in range(e.weight)])

    def _send_all(self) -> None:
        pool = Pool(min(_THREADS_MAX, self._threads), thread_name_prefix="load")
        sent, quarter = [], len(self._shots) // 4
        try:
            began = time.monotonic()
            for number, (due, request) in enumerate(self._shots):
                left = began + due - time.monotonic()
                if self._target.stopped.wait(max(0.0, left)):
                    break
                if number == quarter:
                    sent.append(pool.submit(self._measure_memory))
                self.load.late.append(time.monotonic() - began - due)
                sent.append(pool.submit(self._send, request, began + due))
            done, _late = wait(sent, timeout=2 * self._target.timeout_seconds)
            for each in done:
                each.result()
        finally:
            self._target.stop_if_interrupted()
            pool.shutdown(cancel_futures=True)
        self._measure_memory()

    def _send(self, request: LoadRequestSettings, due: float) -> None:
        try:
            status = self._ask(request)
        except Inconclusive as error:
            self.load.sample.lost.append(str(error))
        else:
            self.load.sample.add(status, time.monotonic() - due)

    def _create(self) -> None:
        """Create an object for the subscribers, outside of what is measured."""
        with suppress(Inconclusive):
            self._ask(next(each for each in self._asked.requests if each.is_marked))

    def _ask(self, request: LoadRequestSettings) -> int:
        mark = f"{self._prefix}{next(self._numbers)}"
        document = json.loads(json.dumps(request.document).replace(MARK, mark))
        with self._session() as session:
            status = session.request(
                request.method,
                request.path,
                key=self._asked.key,
                document=document or None,
                own=(TOO_MANY,),
            ).status
        if status < 400 and request.is_marked:
            self.load.accepted.append(mark)
        return status

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            session = self._idle.get_nowait()
        except Empty:
            session = Session(self._target)
        try:
            yield session
        finally:
            self._idle.put(session)

    def _measure_memory(self) -> None:
        metrics = self._settings.observability
        if not metrics.metrics:
            return
        names = {_START_TIME: _START_TIME, self._asked.memory_metric: MEMORY}
        try:
            with self._session() as session:
                answer = session.get(metrics.metrics, key=metrics.metrics_key)
        except Inconclusive:
            return
        found = _SAMPLE.findall(answer.body.decode(errors="replace"))
        values = {names[name]: float(value) for name, value in found if name in names}
        if MEMORY in values:
            self.load.memory.append(values)
