"""A system that runs: the example service on its database, opskit, and who watches."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import urllib3

from opskit.errors import OpskitError
from opskit.postgres import database
from opskit.postgres.connect import connect
from opskit.postgres.servers.throwaway import SUPERUSER
from tests import processes, watching
from tests.ports import free_port
from tests.releases.site import TEMPLATE, Ground, Site
from tests.support import value
from tests.unit import stock
from tests.watching import Prometheus, Scheduler, at_once, target

DATABASE = "service"
# No job runs by itself: a scenario has the one run that it is about.
_WATCHED = """
[scheduler]
listen = "127.0.0.1:{port}"
verify = ""
drill = ""
prune = ""
report = ""
smoke = ""
"""
_KEPT = """
SELECT md5(string_agg(concat_ws('|', id, owner_id, title, details, status), E'\\n'
    ORDER BY id)) FROM public.tasks WHERE id <= {newest}
"""
_MADE = b"SELECT datname FROM pg_database WHERE NOT datistemplate"


@dataclass
class System:
    """A host with the service, a drilled set, a scheduler, and a Prometheus.

    In the steady state `faults` has nothing to say. `kept` is what the rows up to
    `newest` held when the system came up: the newest set holds them as well.
    """

    site: Site
    key: str
    port: int
    version: str = "1"
    variables: dict[str, str] = field(default_factory=dict)
    prometheus: Prometheus = field(init=False)
    scheduler: Scheduler = field(init=False)
    newest: int = 0
    kept: str = ""

    @property
    def folder(self) -> Path:
        """Where the configuration is, and people run opskit."""
        return self.site.folder

    @property
    def environment(self) -> dict[str, str]:
        """The variables of whoever runs opskit and psql there."""
        return {
            **self.site.environment,
            "OPSKIT_DATABASES__SERVICE__SCHEDULE": "@yearly",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.site.server_port),
            "PGUSER": SUPERUSER,
            **self.variables,
        }

    def configure(self, more: str = "", **options: str) -> None:
        """Write the configuration; `options` are those of `Site.configure`."""
        self.site.configure(**options)
        with (self.folder / "opskit.toml").open("a") as file:
            file.write(_WATCHED.format(port=self.port) + more)

    def start(self, stack: ExitStack) -> None:
        """Start who watches, and learn which rows there are."""
        stock.program("psql")  # what runbooks run
        rows = value(self.site.url, "SELECT max(id) FROM public.tasks")
        self.newest = int(rows)
        self.kept = self._rows()
        rules = self.run("rules")
        self.scheduler = Scheduler(self.folder, stack, self.environment)
        folder, port = self.folder / "prometheus", free_port()
        folder.mkdir()
        jobs = {
            "opskit": {"static_configs": target(self.port)},
            "service": {"static_configs": target(self.site.port)},
        }
        running = watching.prometheus(folder, port, at_once(rules), jobs)
        self.prometheus = stack.enter_context(running)

    def run(self, *arguments: str, codes: Sequence[int] = (0,)) -> str:
        """Run opskit to its end as a process, and return what it printed."""
        code, output, errors = processes.run_inv(
            self.folder, arguments, self.environment
        )
        said = f"opskit {' '.join(arguments)} ended with {code}"
        assert code in codes, f"{said}: {output}\n{errors}"
        return output

    def document(self, *arguments: str, codes: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run opskit with `--json`, and return its document."""
        document: dict[str, Any] = json.loads(
            self.run(*arguments, "--json", codes=codes)
        )
        return document

    @property
    def newest_set(self) -> str:
        """The ID of the newest set."""
        return str(self.document("backups")["backups"][0]["backup_id"])

    def page(self) -> str:
        """Return the status page; empty if there is none."""
        with contextlib.suppress(OSError):
            address = f"http://127.0.0.1:{self.port}/"
            with urllib.request.urlopen(address, timeout=30) as answer:
                return str(answer.read().decode())
        return ""

    def alerts(self) -> dict[str, list[dict[str, Any]]]:
        """Return the alerts that fire; those of the service tell of hours, and last."""
        return self.prometheus.firing()

    def faults(self) -> list[str]:
        """Return what is not as it is in the steady state."""
        return [
            *self.faults_of_service(),
            *self.faults_of_rows(),
            *self.faults_of_status(),
        ]

    def faults_of_service(self) -> Iterator[str]:
        """Yield what the service does not do: answer, take a task, give it back."""
        if (version := self.site.version) != self.version:
            yield f"the service answers as version {version!r}"
        try:
            made = self._ask("POST", "/api/tasks", {"title": "made by a game day"})
            if made.status != 201:
                yield f"a task is answered with {made.status}"
            elif self._ask("GET", f"/api/tasks/{made.json()['id']}").status != 200:
                yield "a task that was taken is not there"
        except urllib3.exceptions.HTTPError as error:
            yield f"the service does not answer: {error}"

    def faults_of_rows(self) -> Iterator[str]:
        """Yield whether rows are missing or changed that there were in the beginning."""
        try:
            if self._rows() != self.kept:
                yield "rows are missing or changed"
        except (OpskitError, psycopg.Error) as error:
            yield f"the rows cannot be read: {error}"

    def faults_of_status(self) -> Iterator[str]:
        """Yield the checks of `opskit status` that fail, and alerts about opskit."""
        document = self.document("status", codes=(0, 3, 4))
        for each in document["checks"]:
            if each["status"] != "healthy":
                yield f"status: {each['name']}: {each['observed']}"
        try:
            yield from (each for each in self.alerts() if each.startswith("Opskit"))
            if not self.prometheus.values("opskit_ledger_intact"):
                yield "Prometheus has no metrics of opskit"
        except urllib.error.URLError as error:
            yield f"Prometheus does not answer: {error}"

    def _rows(self) -> str:
        return str(value(self.site.url, _KEPT.format(newest=self.newest)))

    def _ask(
        self, method: str, path: str, document: object = None
    ) -> urllib3.BaseHTTPResponse:
        return urllib3.request(
            method,
            f"http://127.0.0.1:{self.site.port}{path}",
            json=document,
            headers={"X-API-Key": self.key},
            retries=False,
            timeout=10,
        )


@contextlib.contextmanager
def hosted(ground: Ground) -> Iterator[System]:
    """Yield a system on which the service runs; nobody watches it yet."""
    port = free_port()
    with ground.site(DATABASE) as site:
        site.url = f"postgresql://{SUPERUSER}@127.0.0.1:{site.server_port}/{DATABASE}"
        system = System(site=site, key=ground.keys["client"], port=port)
        system.configure()
        try:
            yield system
        finally:
            _drop_databases(ground.server.url())


def _drop_databases(server: str) -> None:
    """Drop what a scenario and its runbook left on the server."""
    with connect(server, purpose="test") as connection:
        for (name,) in connection.execute(_MADE).fetchall():
            if name not in ("postgres", TEMPLATE):
                database.drop(connection, name)
