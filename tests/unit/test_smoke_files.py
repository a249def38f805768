"""A report that cannot be written is refused before the service is asked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from opskit.checks import compare
from opskit.config.smoke import service_address
from opskit.ledger import Ledger
from opskit.operations.run import Run
from opskit.operations.smoke import SmokeRequest, smoke
from opskit.probes.probe import Probe
from tests.asgi import serving
from tests.unit.conftest import LoadConfig


@dataclass
class Asked:
    """A run against a service that names its version, and what was asked of it."""

    run: Run
    paths: list[str] = field(default_factory=list)
    versions: Iterator[str] = field(default_factory=lambda: repeat("1"))
    on_request: Callable[[], None] = lambda: None


@contextmanager
def _asked(load_config: LoadConfig, folder: Path) -> Iterator[Asked]:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        asked.paths.append(Request(scope).url.path)
        asked.on_request()
        await JSONResponse({"version": next(asked.versions, "0")})(scope, receive, send)

    with serving(service) as url:
        run = Run(
            load_config(
                f'state_dir = "{folder}"\n[stores.local]\nurl = "file://{folder}"\n'
                f'[smoke]\nurl = "{url}"\nprofile = "minimal"\ndeadline = "1s"\n'
            )
        )
        asked = Asked(run)
        yield asked


def _missing(folder: Path) -> Path:
    return folder / "missing" / "report"


def _a_folder(folder: Path) -> Path:
    return folder


def _a_fifo(folder: Path) -> Path:
    """As /dev/stdout is in a pipeline; it would be replaced by a file."""
    os.mkfifo(folder / "fifo")
    return folder / "fifo"


def _a_link(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "elsewhere")
    return folder / "link"


def _not_writable(_folder: Path) -> Path:
    return Path("/proc/report")  # not even for root


@pytest.mark.parametrize("flag", ["junit", "markdown"])
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (_missing, "there is no folder"),
        (_a_folder, "it exists, and is no regular file"),
        (_a_fifo, "it exists, and is no regular file"),
        (_a_link, "it exists, and is no regular file"),
        (_not_writable, ""),  # what the system says differs by user
    ],
)
def test_a_file_that_cannot_be_written_is_refused_at_once(
    load_config: LoadConfig,
    tmp_path: Path,
    flag: str,
    place: Callable[[Path], Path],
    reason: str,
) -> None:
    """The exit code is 2, and no request arrives."""
    file = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with _asked(load_config, tmp_path) as asked:
        request = (
            SmokeRequest(junit=file) if flag == "junit" else SmokeRequest(markdown=file)
        )
        outcome = smoke(asked.run, request)

    assert asked.paths == []
    assert outcome.exit_code == 2
    assert f"--{flag} {file}: {reason}" in outcome.errors[0].message
    assert outcome.errors[0].hint
    assert sorted({*tmp_path.rglob("*")} - {tmp_path / "opskit.toml"}) == before


def test_two_reports_in_one_file_are_refused(
    load_config: LoadConfig, tmp_path: Path
) -> None:
    """One would overwrite the other."""
    file = tmp_path / "report"
    with _asked(load_config, tmp_path) as asked:
        outcome = smoke(asked.run, SmokeRequest(junit=file, markdown=file))

    assert asked.paths == []
    assert outcome.exit_code == 2
    assert "both name" in outcome.errors[0].message


@pytest.mark.parametrize(
    ("version", "status", "code"), [("1", "passed", 10), ("2", "inconclusive", 61)]
)
def test_a_verdict_outlives_its_report(
    load_config: LoadConfig, tmp_path: Path, version: str, status: str, code: int
) -> None:
    """The folder goes away meanwhile: what the service answered is said all the same."""
    folder = tmp_path / "reports"
    folder.mkdir()
    with _asked(load_config, tmp_path) as asked:
        asked.on_request = lambda: shutil.rmtree(folder, ignore_errors=True)
        file = folder / "smoke.md"
        outcome = smoke(asked.run, SmokeRequest(version=version, markdown=file))

    assert outcome.result is not None
    assert outcome.status == status
    assert outcome.exit_code == code
    assert f"the report {file} cannot be written: " in outcome.errors[-1].message
    assert asked.run.ledger.entries()[-1].details["status"] == status


def test_a_run_does_not_pass_while_another_version_answers(
    load_config: LoadConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came after the version was confirmed; every probe has passed in the end."""
    answers = iter([compare("", 200, 500), compare("", 200, 200)])
    probe = Probe(
        name="health.one", ask=lambda _: next(answers), what="", why="", remedy=""
    )
    monkeypatch.setattr(
        "opskit.operations.smoke.families", lambda *_: {"health": (probe,)}
    )
    with _asked(load_config, tmp_path) as asked:
        asked.versions = iter("11111")
        outcome = smoke(asked.run, SmokeRequest(profile="standard", version="1"))

    assert outcome.result is not None
    assert [each.check.passed for each in outcome.result.findings] == [None, True]
    assert (outcome.status, outcome.exit_code) == ("inconclusive", 61)


def test_the_configured_service_is_known_by_its_address_in_any_form(
    load_config: LoadConfig, tmp_path: Path
) -> None:
    """A run that asks it says something about it, however its address is written."""
    with _asked(load_config, tmp_path) as asked:
        url = asked.run.settings.smoke.url
        for each in (url.replace("http", "HTTP") + "/", f"{url}/elsewhere"):
            smoke(asked.run, SmokeRequest(url=each))

    ledger = Ledger(tmp_path / "ledger.jsonl").entries()
    assert [each.details.get("source") for each in ledger] == [None, f"{url}/elsewhere"]
    assert service_address("HTTPS://App.Example/Api/") == "https://app.example/Api"
