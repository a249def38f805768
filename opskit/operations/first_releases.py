"""A first release, a bad one and its way back, of a tiny service beside the sample."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from opskit import config, files
from opskit.config.release import LocalSettings
from opskit.config.smoke import SmokeSettings
from opskit.errors import ReleaseFailed
from opskit.operations.outcome import Outcome
from opskit.operations.release import ReleaseRequest, release
from opskit.operations.run import begin
from opskit.operations.steps import OnStep, Released
from opskit.release.local import Local

# Names its version, and is healthy while its query works.
_SERVICE = '''\
"""A service of the sample shop: how it is, and how many orders there are."""

import http.server
import json
import os
import sys
import time

import psycopg

VERSION, STARTED = os.environ["OPSKIT_VERSION"], time.monotonic()
QUERY = "{query}"


def count_orders():
    with psycopg.connect(sys.argv[2]) as connection:
        return connection.execute(QUERY).fetchone()[0]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        report = {{"version": VERSION, "uptime_seconds": time.monotonic() - STARTED}}
        try:
            report |= {{"orders": count_orders(), "status": "healthy"}}
        except psycopg.Error as error:
            print(error, file=sys.stderr, flush=True)
            report["status"] = "unhealthy"
        body = json.dumps(report).encode()
        self.send_response(200 if report["status"] == "healthy" else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


address = ("127.0.0.1", int(sys.argv[1]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
'''
_QUERIES = {
    "1": "SELECT count(*) FROM shop.orders",
    "2": "SELECT count(*) FROM shop.orders WHERE NOT is_gift",
    "3": "SELECT count(*) FROM shop.orders WHERE NOT is_a_gift",
}
_MIGRATION = "ALTER TABLE shop.orders ADD is_gift boolean NOT NULL DEFAULT false;\n"
_WAY_BACK = "ALTER TABLE shop.orders DROP is_gift;\n"
# What is released, what is said of it, and the exit code that it must have.
_RELEASES = (
    ("2", "which adds a column and asks for it", 0),
    ("3", "which asks for a column that does not exist", 60),
)


def try_releases(
    path: Path,
    *,
    source: str,
    url: str,
    on_version: Callable[[str], object],
    on_step: OnStep,
    on_done: Callable[[Outcome[Released]], object],
) -> Sequence[Released]:
    """Run a service, release a good version of it, and one that is taken back.

    The configuration at `path` is completed for it. `on_version` gets what is begun,
    `on_done` how each release ended.

    Raises:
        ReleaseFailed: one of them did not end as it must.
    """
    folder = path.parent / "service"
    # An earlier run that was killed has left its process; the folder has its record.
    Local(LocalSettings(folder=folder), SmokeSettings(), folder).stop()
    _write_versions(folder)
    address = _configure(path, folder, source, url)
    done = []
    with _running(path, folder):
        on_version(f"version 1 of a service runs at {address}")
        for version, what, code in _RELEASES:
            on_version(f"releasing version {version}, {what}")
            request = ReleaseRequest(version=version)
            outcome = release(begin(config.load(path)), request, on_step=on_step)
            on_done(outcome)
            if outcome.result is None or outcome.exit_code != code:
                raise ReleaseFailed(
                    f"the release of version {version} ended with {outcome.exit_code}, "
                    f"not with {code}",
                    hint=f"See {folder / 'service.log'}.",
                )
            done.append(outcome.result)
    return done


def _write_versions(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for version, query in _QUERIES.items():
        files.make_directories(folder / "releases" / version)
        text = _SERVICE.format(query=query)
        files.write_text(folder / "releases" / version / "service.py", text)
    files.make_directories(folder / "migrations")
    files.write_text(folder / "migrations" / "0001_gifts.sql", _MIGRATION)
    files.write_text(folder / "migrations" / "0001_gifts.down.sql", _WAY_BACK)


def _configure(path: Path, folder: Path, source: str, url: str) -> str:
    """Add the service to the configuration; return its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    start = [sys.executable, "service.py", port, url]
    address = f"http://127.0.0.1:{port}"
    more = f"""
[smoke]
url = "{address}"
profile = "minimal"
deadline = "10s"

[smoke.health]
path = "/health"

[release]
deployer = "local"

[release.local]
folder = {json.dumps(str(folder))}
start = {json.dumps(start)}

[release.migrations]
tool = "sql"
database = "{source}"
folder = {json.dumps(str(folder / "migrations"))}
"""
    files.write_text(path, path.read_text(encoding="utf-8") + more)
    return address


@contextmanager
def _running(path: Path, folder: Path) -> Iterator[None]:
    """Have version 1 run, and whichever version it is end with the block."""
    settings = config.load(path)
    deployer = Local(settings.release.local, settings.smoke, folder)
    try:
        deployer.deploy("1")
        yield
    finally:
        deployer.stop()
