"""Hundred: the good service is probed again and again, beside work that hinders it."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.defects.bench import bench
from tests.service import STRICT


def main() -> int:
    """Count verdicts; return 1 if a probe failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hundred", description=__doc__
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--profile", default="strict")
    parser.add_argument("--load", type=int, default=2, help="processes that compute")
    given = parser.parse_args()
    verdicts: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    times = []
    with (
        bench() as ready,
        ready.services.running(**STRICT) as service,
        tempfile.TemporaryDirectory(prefix="hundred-") as folder,
        _busy(given.load),
    ):
        configuration = service.configuration(Path(folder))
        for number in range(1, given.runs + 1):
            began = time.monotonic()
            document = json.loads(_smoke(configuration, given.profile))
            times.append(time.monotonic() - began)
            verdicts[document["status"]] += 1
            for each in document["checks"]:
                if each["passed"] is not True:
                    word = "inconclusive" if each["passed"] is None else "failed"
                    words = f"{each['observed']} {each['detail']}".strip()
                    print(f"run {number}: {each['name']} {word}: {words}", flush=True)
                    wrong[f"{each['name']} {word}"] += 1
    told = ", ".join(f"{number} {status}" for status, number in verdicts.items())
    print(
        f"{given.runs} runs of {given.profile} with {given.load} busy processes: {told}"
    )
    print(f"{min(times):.1f} to {max(times):.1f} s each; {dict(wrong) or 'none wrong'}")
    return 1 if any(each.endswith("failed") for each in wrong) else 0


def _smoke(configuration: Path, profile: str) -> str:
    command = [sys.executable, "-m", "opskit", "smoke", "--json", "--profile", profile]
    done = subprocess.run(
        [*command, "--config", configuration],
        cwd=configuration.parent,
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    return done.stdout


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
