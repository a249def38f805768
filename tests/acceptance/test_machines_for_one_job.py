"""Machines that exist for one job: what one began, the next one knows from the stores."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import Project
from tests.listening import answer, listening
from tests.support import value

_SECONDS_MAX = 300


class Machines(Project):
    """A repository whose every job runs on a machine of its own."""

    number = 0

    def new(self, ledger: str) -> Project:
        """Return a new machine, with a checkout and without any state."""
        self.number += 1
        folder = self.folder / f"machine-{self.number}"
        folder.mkdir()
        shutil.copy(self.folder / "opskit.toml", folder)
        shutil.copytree(self.folder / "migrations", folder / "migrations")
        environment = {"OPSKIT_LEDGER_NAME": ledger, "OPSKIT_STATE_DIR": "state"}
        return Project(folder=folder, url=self.url, environment=environment)

    @property
    def production(self) -> Project:
        return self.new("github-release-production")

    @property
    def current(self) -> str:
        return (self.folder / "current").resolve().name


def reply(connection: socket.socket, _head: bytes, _ended: threading.Event) -> None:
    connection.sendall(answer(b"{}"))


@pytest.fixture
def machines(drilled_project: Project) -> Iterator[Machines]:
    """A service with a drilled set; `hang` in its folder keeps a deployment from ending."""
    made = Machines(folder=drilled_project.folder, url=drilled_project.url)
    shutil.rmtree(made.folder / ".opskit")
    (made.folder / "migrations").mkdir()
    (made.folder / "migrations" / "1.sql").write_text("CREATE TABLE public.more ();")
    for version in "123":
        (made.folder / "releases" / version).mkdir(parents=True)
    (made.folder / "current").symlink_to("releases/1")
    restart = f"cd {made.folder}; while [ -e hang ]; do touch hangs; sleep 0.1; done"
    with listening(reply) as place:
        made.configure(
            f"""
[smoke]
url = "http://{place}"
profile = "minimal"
version = {{ field = "" }}
[release]
deployer = "local"
local = {{ folder = {json.dumps(str(made.folder))}, restart = ["sh", "-c", {json.dumps(restart)}] }}
migrations = {{ tool = "sql", database = "shop" }}
"""
        )
        yield made


def test_a_release_on_one_machine_is_taken_back_on_another(machines: Machines) -> None:
    """Releases, evidence and the way back need nothing of the machine before."""
    machines.new("github-backup-shop").run("backup", "--database", "shop")
    assert machines.new("github-backup-shop").json("verify", "--database", "shop")[
        "objects"
    ]
    drilling = machines.new("github-restore-drill")
    drilling.run("restore-drill", "--all")
    published = {
        each.suffix for each in (drilling.folder / "state").rglob("evidence/*/*")
    }
    assert published == {".json", ".md"}

    shutil.rmtree(machines.store)
    machines.store.mkdir()
    refused = machines.production.json("release", "--version", "2", code=62)
    assert "no drilled set" in refused["error"]
    machine = machines.production
    machine.environment["OPSKIT_RELEASE__TAKE_RESTORE_POINT"] = "true"
    first = machine.json("release", "--version", "2")
    assert first["restore_point"].startswith("shop-")
    second = machines.production.json("release", "--version", "3")

    evidence = machines.production.json("evidence", "--release", "latest")
    assert (evidence["release_id"], evidence["missing"]) == (second["release_id"], [])
    back = machines.production.json("rollback", "--to", "2")
    assert (back["status"], back["previous"], machines.current) == (
        "rolled-back",
        "3",
        "2",
    )
    listed = machines.production.json("releases")["releases"]
    assert [e["release"] for e in listed[1:3]] == [
        second["release_id"], first["release_id"],
    ]  # fmt: skip
    assert machines.production.json("ledger", "--verify")["status"] == "ok"
    checks = machines.new("github-smoke").json("status")["checks"]
    seen = {e["name"]: e["observed"] for e in checks}
    assert seen["database shop: proof"].endswith(" is drilled")


def test_a_release_that_died_with_its_machine_is_known_to_the_next(
    machines: Machines,
) -> None:
    """What it had begun is in the stores before it begins; it is resumed elsewhere."""
    (machines.folder / "hang").touch()
    process = machines.production.start("release", "--version", "2")
    try:
        deadline = time.monotonic() + _SECONDS_MAX
        while not (machines.folder / "hangs").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate(timeout=_SECONDS_MAX)
        (machines.folder / "hang").unlink()

    refused = machines.production.json("release", "--version", "3", code=62)
    assert "broke off" in refused["error"]
    assert "--resume" in refused["hint"]
    resumed = machines.production.json("release", "--resume")

    assert (resumed["status"], machines.current) == ("released", "2")
    steps = {each["name"]: each["status"] for each in resumed["steps"]}
    assert (steps["migrate"], steps["deploy"]) == ("done before", "ok")
    assert value(machines.url, "SELECT count(*) FROM opskit.migrations") == 1
