"""A client that writes all the time, and knows what the service has confirmed."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from types import TracebackType

import urllib3

_PAUSE_SECONDS = 0.2
_ANSWER_SECONDS = 5
_END_SECONDS = 60


@dataclass
class Writer:
    """Creates tasks, one after the other, while its block is open.

    `confirmed` are the ids of those that the service has answered with 201, `failed`
    is the number of requests that it did not.
    """

    url: str
    key: str
    confirmed: list[int] = field(default_factory=list)
    failed: int = 0
    _ending: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Writer:
        self._thread = threading.Thread(target=self._write, name="writer")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join(_END_SECONDS)
        assert not self._thread.is_alive()

    def _write(self) -> None:
        with urllib3.PoolManager(retries=False, timeout=_ANSWER_SECONDS) as pool:
            for number in itertools.count():
                if self._ending.wait(_PAUSE_SECONDS):
                    return
                try:
                    answer = pool.request(
                        "POST",
                        f"{self.url}/api/tasks",
                        json={"title": f"written {number}"},
                        headers={"X-API-Key": self.key},
                    )
                except urllib3.exceptions.HTTPError:
                    self.failed += 1
                    continue
                if answer.status == 201:
                    self.confirmed.append(answer.json()["id"])
                else:
                    self.failed += 1
