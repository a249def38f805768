"""Hundred: the good service is probed again and again, beside work that hinders it.

With a proxy, it is probed through a balancer that errs, and that also leads to an old
version, which is wrong in many ways.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.defects.bench import bench
from tests.defects.defect import copy
from tests.defects.registry import DEFECTS
from tests.flaky import balancing
from tests.nginx import balancing_requests
from tests.service import STRICT, Service

_PROXIES = ("connection", "request")
# What the old version does wrong: something in each family.
_OLD = [
    "no-uptime",
    "readiness-with-pid",
    "list-without-key",
    "stream-without-key",
    "websocket-without-key",
    "deaf-websocket",
    "silent-stream",
    "key-in-any-header",
    "expired-token",
    "token-of-any-issuer",
    "task-of-another",
    "tasks-of-all",
    "reader-creates",
    "diagnostics-for-all",
    "no-hsts",
    "no-csp",
    "no-nosniff",
    "server-version",
    "cookie-without-secure",
    "cors-for-all",
    "no-retry-after",
    "remaining-stands-still",
    "signature-not-compared",
    "unknown-type-is-an-error",
    "id-with-another-body",
    "sent-without-signature",
    "no-body-limit",
    "shed-without-retry-after",
    "no-time-limit",
    "malformed-json-is-an-error",
    "deep-nesting-is-an-error",
    "types-are-guessed",
    "metrics-as-json",
    "request-id-not-echoed",
    "logs-as-text",
    "no-cap",
    "no-order",
    "total-of-the-page",
    "audit-for-readers",
    "nothing-is-recorded",
]


@dataclass
class _Tally:
    """What became of the runs."""

    verdicts: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)

    def add(self, document: dict[str, Any], seconds: float) -> None:
        """Count one run, and print it."""
        self.verdicts[document["status"]] += 1
        self.seconds.append(seconds)
        self.requests.append(document["requests"])
        number = f"run {len(self.seconds)}"
        for each in document["checks"]:
            if each["passed"] is not True:
                word = "inconclusive" if each["passed"] is None else "failed"
                word = f"advisory, {word}" if each["advisory"] else word
                words = f"{each['observed']} {each['detail']}".strip()
                print(f"{number}: {each['name']} ({word}): {words}")
                self.wrong[f"{each['name']} ({word})"] += 1
        asked = f"{document['requests']} requests in {seconds:.1f} s"
        print(f"{number}: {document['status']}, {asked}", flush=True)

    @property
    def failed(self) -> bool:
        """Whether a probe that counts failed in one of them."""
        return any(each.endswith("(failed)") for each in self.wrong)

    def __str__(self) -> str:
        told = ", ".join(
            f"{number} {status}" for status, number in self.verdicts.items()
        )
        return (
            f"{told}; {min(self.seconds):.1f} to {max(self.seconds):.1f} s and "
            f"{min(self.requests)} to {max(self.requests)} requests each; "
            f"{dict(self.wrong) or 'none wrong'}"
        )


def main() -> int:
    """Count verdicts; return 1 if a probe failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hundred", description=__doc__
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--profile", default="strict")
    parser.add_argument("--load", type=int, default=2, help="processes that compute")
    parser.add_argument(
        "--proxy", choices=_PROXIES, help="what a balancer chooses an instance for"
    )
    parser.add_argument(
        "--no-old", action="store_true", help="the balancer has no old version"
    )
    parser.add_argument("--deadline", default="", help="of each run, as in [smoke]")
    given = parser.parse_args()
    tally = _Tally()
    options = ["--profile", given.profile]
    environment = {"OPSKIT_SMOKE__DEADLINE": given.deadline} if given.deadline else {}
    with (
        bench() as ready,
        ready.services.running(**STRICT) as service,
        tempfile.TemporaryDirectory(prefix="hundred-") as folder,
        _instances(service, given, Path(folder)) as instances,
        _busy(given.load),
    ):
        configuration = service.configuration(Path(folder))
        if given.proxy:
            options += ["--version", "1.0.0"]
            _fit(configuration)
        for number in range(1, given.runs + 1):
            began = time.monotonic()
            with _reached(instances, given.proxy, number) as url:
                document = _smoke(configuration, [*options, "--url", url], environment)
            tally.add(document, time.monotonic() - began)
    print(f"{given.runs} runs of {given.profile}: {tally}")
    return 1 if tally.failed else 0


@contextmanager
def _instances(
    service: Service, given: argparse.Namespace, folder: Path
) -> Iterator[tuple[str, ...]]:
    """Yield the addresses that a balancer of connections leads to; one if there is none."""
    if not given.proxy:
        yield (service.url,)
        return
    source = folder / "old"
    copy(source)
    for name in _OLD:
        DEFECTS[name].plant(source)
    with ExitStack() as stack:
        second = stack.enter_context(service.second())
        instances: tuple[str, ...] = (service.url, second.url)
        if not given.no_old:
            old = stack.enter_context(service.second(source=source, version="0.9.0"))
            instances += (old.url,)
        if given.proxy == "request":
            place = folder / "nginx"
            place.mkdir()
            balancer = stack.enter_context(balancing_requests(place, *instances))
            instances = (balancer,)
        yield instances


def _reached(
    instances: tuple[str, ...], proxy: str | None, seed: int
) -> AbstractContextManager[str]:
    """Return what yields the address to ask at."""
    if not proxy:
        return nullcontext(instances[0])
    return balancing(*instances, seed=seed, trouble=0.1, slow_seconds=5.0)


def _fit(configuration: Path) -> None:
    """Leave out the log, of which each instance has its own; have all of them busy."""
    text = re.sub(r"(?m)^log_file = .*\n", "", configuration.read_text())
    text = re.sub(r"(?m)^busy_clients = \d+", "busy_clients = 180", text)
    configuration.write_text(text)


def _smoke(
    configuration: Path, options: list[str], environment: dict[str, str]
) -> dict[str, Any]:
    command = [sys.executable, "-m", "opskit", "smoke", "--json", *options]
    done = subprocess.run(
        [*command, "--config", configuration],
        cwd=configuration.parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@contextmanager
def _busy(number: int) -> Iterator[None]:
    """Keep processors busy until the end of the block."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_compute, daemon=True) for _ in range(number)]
    for each in processes:
        each.start()
    try:
        yield
    finally:
        for each in processes:
            each.kill()
            each.join()


def _compute() -> None:
    while True:
        sum(range(1_000_000))


if __name__ == "__main__":
    sys.exit(main())
