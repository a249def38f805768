"""Services that nobody here wrote, probed by a configuration alone: nginx, Datasette.

`.ci/foreign-service` installs Datasette, and TEST_OPSKIT_FOREIGN_SERVICES names the
folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nginx import nginx
from tests.unit import stock

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# As Debian's package has it, without what it includes.
STOCK = """
pid nginx.pid;
error_log stderr;
events { worker_connections 768; }
http {
    sendfile on;
    tcp_nopush on;
    types { text/html html; }
    default_type application/octet-stream;
    access_log off;
    client_body_temp_path body;
    gzip on;
    server {
        include listen.conf;
        root html;
        index index.html;
        location / { try_files $uri $uri/ =404; }
    }
}
"""
_SECONDS_MAX = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prefix folder of nginx, with a page."""
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "index.html").write_text("<p>hello</p>")
    return tmp_path


@contextlib.contextmanager
def datasette(folder: Path) -> Iterator[str]:
    """Run Datasette with a table of 250 books, and yield its address."""
    place = os.environ.get("TEST_OPSKIT_FOREIGN_SERVICES", "")
    program = Path(place) / "datasette" / "bin" / "datasette"
    if not place or not program.is_file():
        stock.missing("foreign")
    library = folder / "library.db"
    with contextlib.closing(sqlite3.connect(library)) as connection:
        connection.execute("CREATE TABLE books (id integer PRIMARY KEY, title text)")
        titles = [(f"book {number}",) for number in range(250)]
        connection.executemany("INSERT INTO books (title) VALUES (?)", titles)
        connection.commit()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "serve", library, "--cors", "--port", "0"], stderr=output
        )
    try:
        end = time.monotonic() + _SECONDS_MAX
        while not (found := re.search(r"running on (http://[\d.:]+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield found[1]
    finally:
        process.terminate()
        process.wait(_SECONDS_MAX)


def smoke(
    name: str, folder: Path, url: str, **more: str
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Probe by the configuration of an example; the document, and names by verdict."""
    shutil.copy(EXAMPLES / name / "opskit.toml", folder)
    environment = {"PATH": os.environ["PATH"], "OPSKIT_SMOKE__URL": url}
    environment |= {f"OPSKIT_SMOKE__{key}": value for key, value in more.items()}
    done = subprocess.run(
        [sys.executable, "-m", "opskit", "smoke", "--json"],
        cwd=folder,
        env=environment | {"OPSKIT_SMOKE__DEADLINE": more.get("DEADLINE", "5s")},
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    names: dict[str, list[str]] = {"passed": [], "failed": [], "inconclusive": []}
    verdicts = {True: "passed", False: "failed", None: "inconclusive"}
    for each in document["checks"]:
        # What is measured depends on what else this machine does.
        if not each["advisory"]:
            names[verdicts[each["passed"]]].append(each["name"])
    return document, names


def test_nginx_passes_with_the_configuration_of_the_example(folder: Path) -> None:
    """Headers on errors too, origins, a limit of bodies, and slow clients."""
    text = (EXAMPLES / "nginx" / "nginx.conf").read_text()

    with nginx(folder, text) as url:
        document, names = smoke("nginx", folder, url, DEADLINE="60s")

    assert [
        each for each in document["checks"] if each["name"] in names["failed"]
    ] == []
    assert names["inconclusive"] == []
    assert {"headers.csp", "cors.preflight", "limits.body-chunked"} <= {
        *names["passed"]
    }


def test_nginx_as_it_comes_fails(folder: Path) -> None:
    """It names its version, has no security headers, and takes no forms."""
    with nginx(folder, STOCK) as url:
        bare = {"IDENTITY": "", "VERSION__PATH": "/", "VERSION__FIELD": ""}
        document, names = smoke("nginx", folder, url, **bare)

    assert document["status"] == "failed"
    assert set(names["failed"]) == {
        "headers.csp",
        "headers.frame-options",
        "headers.nosniff",
        "headers.referrer-policy",
        "headers.server-version",
        "cors.listed-origin",
        "cors.preflight",
        "limits.body-announced",
        "limits.body-chunked",
    }
    shown = {each["name"]: each["observed"] for each in document["checks"]}
    assert "nginx/1." in shown["headers.server-version"]


def test_what_datasette_gets_wrong(tmp_path: Path) -> None:
    """It has no security headers and lets all origins in; a sort by no column is 500."""
    with datasette(tmp_path) as url:
        document, names = smoke("datasette", tmp_path, url)

    assert document["status"] == "failed"
    assert set(names["failed"]) == {
        "headers.csp",
        "headers.frame-options",
        "headers.nosniff",
        "headers.referrer-policy",
        "cors.listed-origin",
        "cors.look-alike-origin",
        "cors.other-origin",
        "cors.preflight",
        "input.invalid-urls",
        "pagination.cursor",
    }
    shown = {each["name"]: each["observed"] for each in document["checks"]}
    assert "_sort=nothing: 500" in shown["input.invalid-urls"]
    assert {
        "version",
        "headers.server-version",
        "input.strange-urls",
        "limits.slow-clients",
        "latency.errors",
        "pagination.default-size",
        "pagination.size-max",
        "pagination.order",
        "pagination.metadata",
    } <= {*names["passed"]}
