"""Loading: which programs are chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.errors import ClientToolError
from opskit.postgres.servers.programs import CLIENT_PROGRAMS, Installation
from opskit.restore.load import choose_program


def _installation(tmp_path: Path, major: int, *programs: str) -> Installation:
    bin_dir = tmp_path / str(major)
    bin_dir.mkdir()
    for name in programs or CLIENT_PROGRAMS:
        (bin_dir / name).touch(mode=0o755)
    return Installation(
        bin_dir=bin_dir, version=f"{major}.1", major=major, embedded=False
    )


@pytest.mark.parametrize(
    ("client_major", "server_major", "chosen"),
    [
        (15, 16, 16),
        (16, 15, 16),
        (15, 15, 15),
        (16, 14, 16),
        (17, 15, 18),
        (15, 18, 18),
    ],
)
def test_programs_of_the_servers_own_major_are_chosen(
    tmp_path: Path, client_major: int, server_major: int, chosen: int
) -> None:
    """The server's own major if it reads the archive, else the oldest that does."""
    available = [_installation(tmp_path, major) for major in (18, 15, 16)]
    found = choose_program(
        available, client_major=client_major, server_major=server_major
    )

    assert found.major == chosen


def test_programs_that_cannot_read_the_archive_are_refused(tmp_path: Path) -> None:
    """Older programs, and folders without pg_restore, are no use."""
    available = [
        _installation(tmp_path, 15),
        _installation(tmp_path, 17, "pg_dump", "psql"),
    ]

    with pytest.raises(ClientToolError, match="major 16 or newer") as refused:
        choose_program(available, client_major=16, server_major=17)

    assert "postgresql-client-16" in refused.value.hint
