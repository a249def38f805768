"""Commands that stop, start and kill a service of the tests and what it uses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.service import Service, Services
from tests.unit import stock

_DATABASE = """
import sys, psycopg
url, name, allowed = sys.argv[1:]
with psycopg.connect(url, autocommit=True) as connection:
    connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}")
    if allowed == "false":
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [name],
        )
"""
# Starts the service again, in a process group of its own, and returns.
_SERVICE = """
import json, pathlib, subprocess, sys
folder, port, log = sys.argv[1:]
folder = pathlib.Path(folder)
with open(log, "ab") as output:
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve", "--port", port],
        cwd=folder,
        env=json.loads((folder / "environment.json").read_text()),
        stderr=output,
        start_new_session=True,
    )
(folder / "again.pid").write_text(str(process.pid))
"""


@contextlib.contextmanager
def commands(services: Services, service: Service) -> Iterator[dict[str, Any]]:
    """Yield the commands for `[smoke.resilience]`; all runs again afterwards."""
    redis = services.redis
    stop = [stock.program("redis-cli"), "-s", f"{redis.folder}/redis.sock"]
    stop += ["shutdown", "nosave"]
    (service.folder / "environment.json").write_text(
        json.dumps(dict(service.environment))
    )
    database = [
        sys.executable,
        "-c",
        _DATABASE,
        services.server.url(),
        service.database,
    ]
    assert service.process is not None
    again = [str(service.folder), str(service.port), str(service.log)]
    try:
        yield {
            "dependencies": {
                "redis": {
                    "stop": stop,
                    "start": [*redis.command, "--daemonize", "yes"],
                },
                "database": {
                    "stop": [*database, "false"],
                    "start": [*database, "true"],
                    "needed": True,
                },
            },
            "kill": ["kill", "-KILL", str(service.process.pid)],
            "start": [sys.executable, "-c", _SERVICE, *again],
        }
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.kill(int((service.folder / "again.pid").read_text()), signal.SIGKILL)
        subprocess.run(stop, check=False)  # the one that a command has started
        redis.stop()
        redis.start()
