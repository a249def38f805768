"""Throw-away servers to drill on: programs or a container, and of which major."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from opskit.config import DrillSettings
from opskit.drill.servers import (
    DrillServer,
    open_server,
    opening_server,
)
from opskit.errors import ClientToolError, DatabaseError
from opskit.postgres.servers import container
from opskit.postgres.servers import throwaway as servers_throwaway
from opskit.postgres.servers.programs import (
    CLIENT_PROGRAMS,
    SERVER_PROGRAMS,
    Installation,
)
from tests.unit.entries import inventory

URL = "postgresql://ops:hunter2@drill.example:6432/postgres"
IMAGE = "registry.example/postgres-with-more:{major}"
SOURCE = "7300000000000000001"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was started with which settings; containers are of `container_major`."""
    made: dict[str, Any] = {"container_major": 16, "ended": 0}

    @contextmanager
    def throwaway(found: Installation, **how: Any) -> Iterator[SimpleNamespace]:
        made.update(started=found, how=how)
        yield SimpleNamespace(
            url=lambda name: f"program/{name}", confinement="not isolated"
        )
        made["ended"] += 1

    @contextmanager
    def start(**how: Any) -> Iterator[SimpleNamespace]:
        made.update(started=how["image"], how=how)
        major = made["container_major"]
        try:
            yield SimpleNamespace(
                url=lambda name: f"container/{name}", major=major, version=f"{major}.1"
            )
        finally:
            made["ended"] += 1

    monkeypatch.setattr(servers_throwaway, "throwaway", throwaway)
    monkeypatch.setattr(container, "container", start)
    return made


def _installed(folder: Path, major: int, *, embedded: bool = False) -> Installation:
    bin_dir = folder / f"{major}-{embedded}"
    bin_dir.mkdir()
    for name in CLIENT_PROGRAMS + SERVER_PROGRAMS:
        (bin_dir / name).touch(mode=0o755)
    return Installation(
        bin_dir=bin_dir, version=f"{major}.4", major=major, embedded=embedded
    )


def _opened(
    settings: DrillSettings,
    installations: Sequence[Installation] = (),
    major: int = 16,
) -> DrillServer:
    with open_server(
        settings,
        installations,
        inventory(server_version=f"{major}.4", system_identifier=SOURCE),
    ) as found:
        return found


@pytest.mark.parametrize(
    ("kind", "embedded"),
    [("auto", False), ("installed", False), ("embedded", True)],
)
def test_programs_of_this_machine_come_first(
    tmp_path: Path, made: dict[str, Any], kind: str, embedded: bool
) -> None:
    """Of the kind that is asked for; auto takes the first, though an image is set."""
    found = [_installed(tmp_path, 16), _installed(tmp_path, 16, embedded=True)]
    running = _opened(
        DrillSettings(
            server=kind, image=IMAGE, settings={"jit": "on"}, work_dir=tmp_path
        ),
        found,
    )

    assert made["started"] == found[embedded]
    assert made["how"] == {"base": tmp_path, "settings": {"jit": "on"}}
    assert running.description == (
        f"PostgreSQL 16.4 ({'embedded' if embedded else 'installed'})"
    )
    assert running.full_description == f"{running.description}, not isolated"
    assert (running.major, running.is_throwaway) == (16, True)
    assert running.url("x") == "program/x"


@pytest.mark.parametrize(
    ("request_", "majors"),
    [
        (DrillSettings(server="auto"), []),
        (DrillSettings(server="auto"), [15, 17]),
        (DrillSettings(server="auto", accept_newer_major=True), [15]),
        (DrillSettings(server="installed", image=IMAGE), [15, 17]),
        (DrillSettings(server="embedded", image=IMAGE), [16]),
    ],
)
def test_without_the_sets_major_there_is_no_drill(
    tmp_path: Path, made: dict[str, Any], request_: DrillSettings, majors: list[int]
) -> None:
    """No container is started unasked: only auto falls back, and to a named image."""
    found = [_installed(tmp_path, major) for major in majors]

    with pytest.raises(ClientToolError, match="no PostgreSQL 16 server programs"):
        _opened(request_, found)

    assert "started" not in made


@pytest.mark.parametrize("majors", [[], [15], [15, 17]])
def test_auto_falls_back_to_the_image_that_is_set(
    tmp_path: Path, made: dict[str, Any], majors: list[int]
) -> None:
    """Where no programs have the major; the image is that of the set's."""
    found = [_installed(tmp_path, major) for major in majors]
    running = _opened(DrillSettings(image=IMAGE), found)

    assert made["started"] == "registry.example/postgres-with-more:16"
    assert running.description == (
        "PostgreSQL 16.1 (container of registry.example/postgres-with-more:16)"
    )
    assert running.url("x") == "container/x"


def test_a_newer_major_is_taken_where_the_user_accepts_it(
    tmp_path: Path, made: dict[str, Any]
) -> None:
    """The next one, and the description says so."""
    found = [_installed(tmp_path, major) for major in (15, 18, 17)]
    running = _opened(DrillSettings(accept_newer_major=True), found)

    assert made["started"] == found[2]
    assert running.description == (
        "PostgreSQL 17.4 (installed, newer than the source's 16)"
    )
    assert running.major == 17


@pytest.mark.parametrize(
    ("image", "started"),
    [
        ("", "postgres:16"),
        ("{major}/x:{major}-{other}", "16/x:16-{other}"),
        ("x@sha256:00", "x@sha256:00"),
    ],
)
def test_a_container_is_started_if_it_is_asked_for(
    tmp_path: Path, made: dict[str, Any], image: str, started: str
) -> None:
    """Though programs are there; by default of the set's major, and bounded."""
    request = DrillSettings(
        server="container",
        image=image,
        memory="1g",
        cpus=0.5,
        settings={"jit": "on"},
        work_dir=tmp_path,
    )
    running = _opened(request, [_installed(tmp_path, 16)])

    assert made["how"] == {
        "image": started,
        "memory": "1g",
        "cpus": 0.5,
        "settings": {"jit": "on"},
        "base": tmp_path,
        "timeout_seconds": 1800,
    }
    assert running.is_throwaway


@pytest.mark.parametrize(
    ("found", "accepts", "hint"),
    [
        (15, False, "does not go back"),
        (15, True, "does not go back"),
        (17, False, "accept_newer_major = true"),
    ],
)
def test_another_major_is_refused(
    made: dict[str, Any],
    found: int,
    accepts: bool,
    hint: str,
) -> None:
    """An older one always, a newer one unless it is accepted; nothing is left."""
    made["container_major"] = found
    request = DrillSettings(server="container", accept_newer_major=accepts)

    with pytest.raises(
        ClientToolError, match=f"is PostgreSQL {found}, .* 16$"
    ) as refused:
        _opened(request)

    assert hint in refused.value.hint
    assert made["ended"] == 1


def test_a_newer_major_may_be_accepted_anywhere(made: dict[str, Any]) -> None:
    """The evidence says what it was."""
    made["container_major"] = 18
    running = _opened(DrillSettings(server="container", accept_newer_major=True))

    assert running.major == 18
    assert "newer than the source's 16" in running.description


def test_programs_are_started_beside_the_block(
    tmp_path: Path, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block goes on; the call waits, and the end of the block ends the server."""
    allowed = threading.Event()
    begun = threading.Event()

    @contextmanager
    def slow(_found: Installation, **_how: Any) -> Iterator[SimpleNamespace]:
        begun.set()
        assert allowed.wait(30)
        yield SimpleNamespace(
            url=lambda name: f"program/{name}", confinement="not isolated"
        )
        made["ended"] += 1

    monkeypatch.setattr(servers_throwaway, "throwaway", slow)
    with opening_server(
        DrillSettings(),
        [_installed(tmp_path, 16)],
        inventory(server_version="16.4", system_identifier=SOURCE),
    ) as wait:
        assert begun.wait(30)
        allowed.set()

        assert wait().url("x") == "program/x"
        assert wait() is wait()
        assert made["ended"] == 0
    assert made["ended"] == 1


def test_a_block_that_does_not_ask_ends_the_server_as_well(
    tmp_path: Path, made: dict[str, Any]
) -> None:
    """A set that cannot be read needs no server, which is gone all the same."""
    with opening_server(
        DrillSettings(),
        [_installed(tmp_path, 16)],
        inventory(server_version="16.4", system_identifier=SOURCE),
    ):
        pass

    assert made["ended"] == 1


@pytest.mark.parametrize("kind", ["auto", "container"])
def test_a_container_is_started_by_the_call(made: dict[str, Any], kind: str) -> None:
    """To fetch its image may take long, which nobody would want to wait for in vain."""
    request = DrillSettings(server=kind, image=IMAGE)
    with opening_server(
        request, [], inventory(server_version="16.4", system_identifier=SOURCE)
    ) as wait:
        assert "started" not in made

        assert wait().url("x") == "container/x"
    assert made["ended"] == 1


def test_missing_programs_are_an_error_of_the_call(made: dict[str, Any]) -> None:
    """Not before: what is wrong with the set comes first."""
    with (
        opening_server(
            DrillSettings(),
            [],
            inventory(server_version="16.4", system_identifier=SOURCE),
        ) as wait,
        pytest.raises(ClientToolError, match="no PostgreSQL 16 server programs"),
    ):
        wait()
    assert made["ended"] == 0


def test_a_server_that_does_not_start_is_an_error_of_the_call(
    tmp_path: Path, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it was met in another thread; and it is none where nobody asks."""

    def broken(_found: Installation, **_how: Any) -> NoReturn:
        raise DatabaseError("initdb failed", hint="Look.")

    monkeypatch.setattr(servers_throwaway, "throwaway", broken)
    programs = [_installed(tmp_path, 16)]
    with opening_server(
        DrillSettings(),
        programs,
        inventory(server_version="16.4", system_identifier=SOURCE),
    ):
        pass
    with (
        opening_server(
            DrillSettings(),
            programs,
            inventory(server_version="16.4", system_identifier=SOURCE),
        ) as wait,
        pytest.raises(DatabaseError, match="initdb failed"),
    ):
        wait()
    assert made["ended"] == 0
