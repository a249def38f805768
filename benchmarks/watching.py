"""`python -m benchmarks.watching`: the scheduler under load while it backs up.

Requests begin at fixed times, whether earlier ones were answered or not, each over a
connection of its own. Their latency counts from the time at which they should begin.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks import dataset, servers
from tests.ports import free_port

_PATHS = ("/health", "/metrics")
_KEY = "key-of-the-benchmark"
_ANSWER_SECONDS_MAX = 30.0
_HEALTHY_SECONDS_MAX = 90.0


class Load:
    """Requests at a fixed rate, and what became of them."""

    def __init__(self, port: int, rate: float) -> None:
        self._port, self._rate = port, rate
        self.latencies: dict[str, list[float]] = {path: [] for path in _PATHS}
        self.outcomes: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Send for so long, and wait for the last answers."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(round(seconds * self._rate)):
                due = began + number / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                path = _PATHS[number % len(_PATHS)]
                group.create_task(self._send(path, due))

    async def _send(self, path: str, due: float) -> None:
        try:
            status = await asyncio.wait_for(ask(self._port, path), _ANSWER_SECONDS_MAX)
        except (OSError, TimeoutError, IndexError) as error:
            status = type(error).__name__
        self.outcomes[status] += 1
        self.latencies[path].append(time.monotonic() - due)


async def ask(port: int, path: str) -> str:
    """Return the status of an answer.

    Raises:
        OSError: the connection broke.
        IndexError: there was no answer.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {_KEY}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        return (await reader.read()).split(b" ", 2)[1].decode()
    finally:
        writer.close()


def configure(folder: Path, url: str, port: int) -> None:
    """Write a configuration with a store, a key and an address."""
    (folder / "store").mkdir()
    (folder / "key").write_text(_KEY)
    (folder / "key").chmod(0o600)
    (folder / "opskit.toml").write_text(
        f"""\
[databases.data]
url = {json.dumps(url)}
[stores.local]
url = {json.dumps((folder / "store").as_uri())}
[scheduler]
listen = "127.0.0.1:{port}"
api_key_file = {json.dumps(str(folder / "key"))}
verify = ""
drill = ""
prune = ""
report = ""
"""
    )


async def opskit(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    """Start opskit in the folder."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "opskit",
        *arguments,
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=(folder / f"{arguments[0]}.log").open("ab"),
    )


async def back_up(folder: Path) -> float:
    """Take a backup and return how many seconds it took.

    Raises:
        RuntimeError: it failed.
    """
    began = time.monotonic()
    process = await opskit(folder, "backup")
    if await process.wait():
        raise RuntimeError((folder / "backup.log").read_text()[-2000:])
    return time.monotonic() - began


async def measure(folder: Path, port: int, wanted: argparse.Namespace) -> None:
    """Back up without load and then with it, and print both."""
    daemon = await opskit(folder, "scheduler")
    try:
        alone = [await back_up(folder) for _ in range(wanted.rounds)]
        await _healthy(port)
        load = Load(port, wanted.rate)
        loading = asyncio.create_task(load.run(wanted.seconds))
        loaded = []
        while not loading.done():
            loaded.append(await back_up(folder))
        await loading
    finally:
        daemon.terminate()
        await daemon.wait()
    report(load, alone, loaded)


async def _healthy(port: int) -> None:
    """Wait until the scheduler has seen the first backup."""
    until = time.monotonic() + _HEALTHY_SECONDS_MAX
    while time.monotonic() < until:
        try:
            if await ask(port, "/health") == "200":
                return
        except (OSError, IndexError):
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError("the scheduler is not healthy")


def report(load: Load, alone: Sequence[float], loaded: Sequence[float]) -> None:
    """Print what was measured."""
    for path, latencies in load.latencies.items():
        cuts = statistics.quantiles(latencies, n=1000, method="inclusive")
        p50, p99, p999 = (1000 * cuts[each - 1] for each in (500, 990, 999))
        print(
            f"{path}: {len(latencies)} requests, p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
            f"p99.9 {p999:.1f} ms, longest {1000 * max(latencies):.1f} ms"
        )
    print(f"answers: {dict(load.outcomes)}")
    without, with_load = statistics.median(alone), statistics.median(loaded)
    print(
        f"backup: {without:.1f} s without load ({len(alone)}), "
        f"{with_load:.1f} s with it ({len(loaded)}): {with_load / without:.2f} times"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the database and measure."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.watching", description=__doc__
    )
    parser.add_argument("--size", type=float, default=1000, help="MB of the database")
    parser.add_argument("--seconds", type=float, default=60, help="of load")
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--rounds", type=int, default=3, help="backups without load")
    wanted = parser.parse_args(arguments)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="watching-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with servers.ordinary(servers.choose(), folder / "server") as source:
            dataset.build(source, "data", size_mb=wanted.size)
            configure(folder, source.url("data"), port)
            asyncio.run(measure(folder, port, wanted))


if __name__ == "__main__":
    main()
