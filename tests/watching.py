"""Who watches: a scheduler and a Prometheus, as processes."""

from __future__ import annotations

import json
import math
import re
import signal
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import bound
from tests.unit import stock

SECONDS_MAX = 180.0


class Scheduler:
    """The scheduler of a folder, as a process that can be ended and started again."""

    def __init__(
        self,
        folder: Path,
        stack: ExitStack,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder, self._stack, self._environment = folder, stack, environment
        self.start()

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "opskit", "scheduler"]
        log = self._folder / "scheduler.log"
        self._process = self._stack.enter_context(
            bound(command, log=log, cwd=self._folder, env=self._environment)
        )
        self._stack.callback(self.stop)

    def stop(self) -> None:
        """End it as a service manager does."""
        self._process.terminate()
        self._process.wait(SECONDS_MAX)

    def reload(self) -> None:
        """Have it read its configuration again, if it runs."""
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """End it as the kernel does where memory is short."""
        self._process.kill()
        self._process.wait(SECONDS_MAX)


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """Ask the API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(
            f"{self.url}/api/v1/{path}?{query}", timeout=30
        ) as answer:
            return json.load(answer)["data"]

    def values(self, expr: str) -> list[float]:
        """Return what a query gives now, without what is no number."""
        found = self.get("query", query=expr)["result"]
        return [v for each in found if math.isfinite(v := float(each["value"][1]))]

    def firing(self) -> dict[str, list[dict[str, Any]]]:
        """Return the alerts that fire, by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for each in self.get("alerts")["alerts"]:
            if each["state"] == "firing":
                found.setdefault(each["labels"]["alertname"], []).append(each)
        return found


@contextmanager
def prometheus(
    folder: Path, port: int, rules: str, jobs: Mapping[str, Mapping[str, object]]
) -> Iterator[Prometheus]:
    """Run Prometheus in a folder: each second it evaluates the rules, and scrapes."""
    (folder / "rules.yml").write_text(rules)
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": ["rules.yml"],
                "scrape_configs": [
                    {"job_name": name, **job} for name, job in jobs.items()
                ],
            }
        )
    )
    command = [
        stock.program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with bound(command, log=folder / "log", cwd=folder):
        yield Prometheus(f"http://127.0.0.1:{port}")


def at_once(rules: str) -> str:
    """Return rules of opskit that are evaluated each second and fire at once."""
    return re.sub(
        r"interval: \w+", "interval: 1s", re.sub(r"for: \w+", "for: 0s", rules)
    )


def target(port: int) -> list[dict[str, list[str]]]:
    """Return a port of this host as Prometheus is given one."""
    return [{"targets": [f"127.0.0.1:{port}"]}]


def until(condition: Callable[[], Any], seconds_max: float = SECONDS_MAX) -> Any:
    """Wait for something to be true, and return it."""
    end = time.monotonic() + seconds_max
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.2)
    return found
