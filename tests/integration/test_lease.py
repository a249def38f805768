"""The lease of schedulers, where the way to the database is not a direct one."""

from __future__ import annotations

from pathlib import Path

from opskit.config import Settings
from opskit.operations.run import Run
from opskit.postgres.parameters import PINNED_SETTINGS
from opskit.postgres.servers import throwaway
from opskit.postgres.servers.programs import Installation, find_server
from opskit.scheduler.lease import Lease
from tests.integration.test_connecting import free_port, pooled
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
        claims = [*(store_dir / "_locks" / ".scheduler").glob("*/*.json")]
        for each in leases:
            each.release()

    assert held == [True, False]
    assert "is locked in store local" in leases[1].holder
    assert len(claims) == 1
