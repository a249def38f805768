"""The lease of schedulers, where the way to the database is not a direct one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from opskit.config import Settings
from opskit.operations.run import Run
from opskit.postgres.parameters import PINNED_SETTINGS
from opskit.postgres.servers import throwaway
from opskit.postgres.servers.programs import Installation, find_server
from opskit.scheduler.lease import Lease
from opskit.threads import Thread
from tests.acceptance.scheduling import eventually
from tests.conftest import MajorServer
from tests.integration.test_connecting import pooled
from tests.ports import free_port
from tests.support import execute


def test_through_a_pooler_the_lease_is_a_claim_in_the_store(
    store_dir: Path, tmp_path: Path, installations: list[Installation]
) -> None:
    """Two sessions may share a server process there, and with it an advisory lock."""
    port = free_port()
    with (
        throwaway.throwaway(
            find_server(installations, major=16),
            port=port,
            settings={"listen_addresses": "127.0.0.1", **PINNED_SETTINGS},
        ) as running,
        pooled(
            port,
            "pool_mode = transaction\ndefault_pool_size = 1\n"
            "ignore_startup_parameters = options,extra_float_digits",
        ) as through,
    ):
        hba = running.folder / "data" / "pg_hba.conf"
        hba.write_text("host all all 127.0.0.1/32 trust\nlocal all all trust\n")
        execute(running.url(), "SELECT pg_reload_conf()")
        leases = [
            Lease(
                Run(
                    Settings.model_validate(
                        {
                            "databases": {"shop": {"url": through}},
                            "stores": {"local": {"url": store_dir.as_uri()}},
                            "state_dir": tmp_path / host,
                        }
                    )
                )
            )
            for host in ("one", "other")
        ]

        held = [each.acquire() for each in leases]
        claims = [*(store_dir / "_locks").glob(".scheduler-*/*/*.json")]
        for each in leases:
            each.release()

    assert held == [True, False]
    assert "is locked in store local" in leases[1].holder
    assert len(claims) == 1


def test_schedulers_with_other_jobs_lead_beside_each_other(
    store_dir: Path, tmp_path: Path
) -> None:
    """One host backs up, another has the rights to prune; times do not matter."""

    def lease(host: str, **scheduler: str) -> Lease:
        settings = {
            "files": {"state": {"path": "/srv/state", "schedule": "@daily"}},
            "stores": {"local": {"url": store_dir.as_uri()}},
            "scheduler": scheduler,
            "state_dir": tmp_path / host,
        }
        return Lease(Run(Settings.model_validate(settings)))

    leases = [
        lease("one", prune=""),
        lease("other", prune="@daily"),
        lease("third", prune="@weekly"),
    ]

    held = [each.acquire() for each in leases]
    for each in leases:
        each.release()

    assert held == [True, True, False]


@contextmanager
def relayed(path: str, answers: threading.Event) -> Iterator[int]:
    """Yield a port that leads to a socket, which is silent while nothing answers."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(65536):
                answers.wait()
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)

    def accept(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, far = listening.accept()[0], socket.socket(socket.AF_UNIX)
                ends.callback(near.close)
                ends.callback(far.close)
                far.connect(path)
                Thread(pump, near, far, name="there")
                Thread(pump, far, near, name="back")

    with ExitStack() as ends:
        listening = ends.enter_context(socket.create_server(("127.0.0.1", 0)))
        ends.callback(listening.shutdown, socket.SHUT_RDWR)
        Thread(accept, listening, name="relay")
        yield listening.getsockname()[1]


def test_a_server_that_does_not_answer_holds_up_no_job(
    store_dir: Path, tmp_path: Path, server_of: MajorServer
) -> None:
    """Its session counts as lost, and with it the lease."""
    answers = threading.Event()
    answers.set()
    server = server_of(16)
    (path,) = server.socket_dir.glob(".s.PGSQL.*[0-9]")
    with relayed(str(path), answers) as port:
        url = f"postgresql://{throwaway.SUPERUSER}@127.0.0.1:{port}/postgres"
        lease = Lease(
            Run(
                Settings.model_validate(
                    {
                        "state_dir": tmp_path / "state",
                        "databases": {"shop": {"url": url}},
                        "stores": {"local": {"url": store_dir.as_uri()}},
                        "scheduler": {"takeover": "20s"},
                    }
                )
            )
        )
        assert lease.acquire()
        assert lease.check()

        answers.clear()
        assert not lease.check()

        answers.set()
        eventually(lease.acquire, that="the server has ended the session")
        lease.release()
