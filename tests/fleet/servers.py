"""Servers of PostgreSQL that can be killed and started again, with many databases."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opskit.postgres import database
from opskit.postgres.connect import connect, quoted
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.confinement import Confinement, Reach, confine
from opskit.postgres.servers.throwaway import SUPERUSER
from opskit.postgres.servers.throwaway import Server as Local
from tests.ports import free_port

# So small that a backup is mostly what it costs to begin and to end one.
TINY = """
CREATE TABLE public.orders (
    id bigint PRIMARY KEY, customer text NOT NULL, total numeric(10, 2), note jsonb
);
INSERT INTO public.orders
SELECT i, 'customer ' || i, i * 1.1, jsonb_build_object('number', i)
FROM generate_series(1, 60) AS i;
CREATE TABLE public.lines (
    order_id bigint REFERENCES public.orders, amount int CHECK (amount > 0)
);
INSERT INTO public.lines SELECT id, 1 + id % 7 FROM public.orders;
CREATE INDEX ON public.lines (order_id);
CREATE SEQUENCE public.numbers;
CREATE VIEW public.totals AS SELECT customer, sum(total) FROM public.orders GROUP BY 1;
"""
_SETTINGS = {"max_connections": "300", "checkpoint_timeout": "10min"}


@dataclass(kw_only=True)
class Server:
    """A server with its data, whether it runs or not."""

    name: str
    address: str
    local: Local
    confinement: Confinement
    process: subprocess.Popen[bytes] | None = None

    def url(self, name: str = "postgres") -> str:
        """Return how a database is reached over the network."""
        return f"postgresql://{SUPERUSER}@{self.address}:{self.local.port}/{name}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = _SETTINGS | {"listen_addresses": self.address}
        self.process = throwaway._start(self.local, self.confinement, settings)
        throwaway._await(self.local, self.process)

    def stop(self) -> None:
        """Kill it: its clients see their connections die."""
        if self.process is not None:
            throwaway._stop(self.process)
            self.process = None

    def create(self, names: Sequence[str], script: str = "") -> None:
        """Create databases: one in which a script runs, the others like that."""
        first, *others = names
        with connect(self.url(), purpose="test") as connection:
            database.run_script(connection, f"CREATE DATABASE {quoted(first)}")
        with connect(self.url(first), purpose="test") as connection:
            database.run_script(connection, script)
        with connect(self.url(), purpose="test") as connection:
            for each in others:
                statement = f"CREATE DATABASE {quoted(each)} TEMPLATE {quoted(first)}"
                connection.execute(statement.encode())


@contextmanager
def server(name: str, major: int, address: str) -> Iterator[Server]:
    """Yield a running server, which is gone with its folder when the block ends."""
    found = programs.find_server(programs.installations(), major=major)
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        path = Path(folder)
        path.chmod(0o711)
        data, socket = path / "data", path / "socket"
        for each in (data, socket):
            each.mkdir()
        reach = Reach(folder=path, shared=(data, socket), network=True)
        confinement, installation = confine(found, reach)
        throwaway._initialise(installation, data, confinement)
        (data / "pg_hba.conf").write_text(
            "local all all trust\nhost all all all trust\n"
        )
        local = Local(
            installation=installation,
            folder=path,
            socket_dir=socket,
            port=free_port(),
        )
        made = Server(name=name, address=address, local=local, confinement=confinement)
        made.start()
        try:
            yield made
        finally:
            made.stop()
