"""Releases with fake operations: what is taken back, resumed, refused, on record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from opskit import locks
from opskit.checks import Check
from opskit.config import Settings
from opskit.errors import (
    ConfigurationError,
    DatabaseError,
    DeployFailed,
    LockHeld,
    MigrationFailed,
    OpskitError,
    ReleaseRefused,
)
from opskit.operations import migrate as migrations
from opskit.operations import pipeline, release, reports, schema
from opskit.operations.outcome import Failure, Outcome
from opskit.operations.recording import RunLedger
from opskit.operations.release import ReleaseRequest
from opskit.operations.run import Run
from opskit.operations.steps import Released
from opskit.postgres import migrations as database

ADDITIVE, REWRITE, DESTRUCTIVE = "additive", "rewrite", "destructive"


class Killed(BaseException):
    """What no code can learn of: the process is gone."""


@dataclass
class World:
    """A service, its database and its probes, and the ledger of this host."""

    folder: Path
    current: str = ""
    deployed: list[str] = field(default_factory=list)
    # Migrations by name, with their class; what the database has, and what was undone.
    migrations: dict[str, str] = field(default_factory=dict)
    database: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    # What their files hold, if it is not what they held at first.
    changed: dict[str, str] = field(default_factory=dict)
    # By the deployed version: what the probes find.
    answers: dict[str, list[Check]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    # What cannot be probed at all.
    unasked: set[str] = field(default_factory=set)
    # Raised at the beginning of what is called so.
    errors: dict[str, BaseException] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)
    # Migrations that are no transaction: a failure leaves half of them.
    in_pieces: set[str] = field(default_factory=set)
    # A migration whose file is changed as soon as it was rehearsed.
    changing: str = ""

    @property
    def run(self) -> Run:
        made = Settings.model_validate(
            {
                "state_dir": self.folder,
                "databases": {"shop": {"url": "postgresql://127.0.0.1/shop"}},
                "smoke": {"url": "http://127.0.0.1:1"},
                "release": {
                    "migrations": {"tool": "sql", "database": "shop"},
                },
            }
            | self.settings
        )
        return Run(made)

    def meet(self, name: str) -> None:
        if error := self.errors.pop(name, None):
            raise error

    # The deployer.
    def require(self, version: str) -> None:
        if "/" in version or version in self.gone:
            raise ReleaseRefused("no version")

    def deploy(self, version: str) -> str:
        self.meet(f"deploy {version}")
        self.current = version
        self.deployed.append(version)
        self.meet(f"deployed {version}")
        return version

    @contextmanager
    def lock(self, _run: Run) -> Iterator[Any]:
        self.meet("lock")
        yield SimpleNamespace(require_held=lambda **_: self.meet("held"))

    # What the pipeline calls.
    def migrate(
        self, run: Run, request: Any, *, on_begin: Callable[[], None] = lambda: None
    ) -> Outcome[Any]:
        lacking = [each for each in self.migrations if each not in self.database]
        done = SimpleNamespace(
            revisions=[self.revision(each) for each in lacking],
            seconds={},
            blockers=(),
        )
        try:
            migrations._require_rehearsed(done.revisions, request.rehearsed)
        except OpskitError as error:
            return _outcome(done, error)
        if request.dry_run or not request.expand_only:
            return _outcome(done)
        try:
            self.meet("migrate")
        except OpskitError as error:
            return _outcome(done, error)
        if lacking:
            on_begin()
        for each in lacking:
            try:
                self.meet(f"migrate {each}")
            except OpskitError as error:
                return _outcome(done, error)
            self.database.append(each)
            done.seconds[each] = 0.1
            self.meet(f"migrated {each}")
        return _outcome(done)

    def rehearse(self, _run: Run, _request: Any) -> Outcome[Any]:
        self.meet("rehearse")
        revisions = [self.revision(each) for each in self.migrations]
        made = SimpleNamespace(kinds=self.migrations, revisions=revisions)
        self.changed |= {self.changing: "something else"}
        return _outcome(SimpleNamespace(rehearsal=made))

    def revision(self, name: str) -> Any:
        return SimpleNamespace(id=name, sha256=self.changed.get(name, "as written"))

    def applied(self, _run: Run) -> list[str]:
        self.meet("applied")
        return list(self.database)

    def undo(self, _run: Run, names: Sequence[str]) -> None:
        self.meet("undo")
        for each in reversed(names):
            self.database.remove(each)
            self.undone.append(each)

    def smoke(self, _run: Run, request: Any) -> Outcome[Any]:
        self.meet(f"smoke {self.current}")
        if self.deployed[-2:] == ["2", "1"]:
            self.meet("smoke of the way back")
        self.asked.append(request.version)
        if self.current in self.unasked:
            return _outcome(None, ConfigurationError("the key cannot be read"))
        gating = self.answers.get(self.current, [])
        failed = any(each.failed for each in gating)
        status = "failed" if failed else "inconclusive" if gating else "passed"
        return _outcome(SimpleNamespace(gating=gating, status=status))

    def revisions(self) -> list[Any]:
        return [
            SimpleNamespace(
                id=each,
                has_way_back=True,
                is_atomic=each not in self.in_pieces,
                phase="expand",
            )
            for each in self.migrations
        ]

    # What a person calls.
    def release(
        self, version: str = "", code: int = 0, *, resume: bool = False
    ) -> Outcome[Released]:
        outcome = release.release(
            self.run, ReleaseRequest(version=version, resume=resume)
        )
        assert outcome.exit_code == code, outcome.errors
        return outcome

    def rollback(self, code: int = 0, *, to: str = "") -> Outcome[Released]:
        outcome = release.rollback(self.run, to=to)
        assert outcome.exit_code == code, outcome.errors
        return outcome

    def killed(self, at: str, call: Callable[[], object]) -> None:
        """Do something, and lose the process at a place: nothing more is recorded."""
        self.errors[at] = Killed()
        ledger = self.folder / "ledger.jsonl"
        lines: list[str] = []
        real = self.meet

        def meet(name: str) -> None:
            if name == at:
                lines[:] = ledger.read_text().splitlines(keepends=True)
            real(name)

        self.meet = meet  # type: ignore[method-assign]
        try:
            with pytest.raises(Killed):
                call()
        finally:
            self.meet = real  # type: ignore[method-assign]
        ledger.write_text("".join(lines))


def _outcome(result: Any, *errors: OpskitError) -> Outcome[Any]:
    run = Run(Settings())
    return Outcome(
        operation="fake",
        status="ok",
        run_id="fake",
        started_at=run.now(),
        seconds=0.0,
        result=result,
        errors=tuple(Failure.of(each) for each in errors),
    )


def failing(name: str) -> Check:
    return Check(name=name, passed=False)


def silent(name: str) -> Check:
    return Check(name=name, passed=None)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A service that runs 1, which was released."""
    made = World(folder=tmp_path)
    deployer = SimpleNamespace(
        require=made.require,
        current=lambda: made.current,
        deploy=made.deploy,
        return_to=made.deploy,
        configuration=dict,
    )
    monkeypatch.setattr(release, "release_lock", made.lock)
    monkeypatch.setattr(release, "deployer_of", lambda *_: deployer)
    monkeypatch.setattr(pipeline, "tool_of", lambda *_: made)
    for name in ("migrate", "rehearse", "applied", "undo", "smoke"):
        monkeypatch.setattr(pipeline, name, getattr(made, name))
    monkeypatch.setattr(schema, "applied", made.applied)
    point = SimpleNamespace(
        manifest=SimpleNamespace(snapshot_at=made.run.now(), backup_id="shop-1")
    )
    monkeypatch.setattr(pipeline, "drilled_sets", lambda *_: [point])
    made.release("1")
    return made


def status(world: World) -> Any:
    return world.run.ledger.entries()[-1].details.get("status")


@pytest.mark.parametrize("at", ["deploy 2", "deployed 2", "smoke 2"])
def test_a_release_that_was_killed_is_the_one_taken_back(world: World, at: str) -> None:
    """Not the good one before it."""
    world.killed(at, lambda: world.release("2"))

    world.rollback()

    assert world.current == "1"
    assert world.deployed[-1] == "1"
    world.rollback(62)


def test_one_killed_before_a_change_does_not_cost_the_one_before(world: World) -> None:
    """A rollback of it would take back a release that is good."""
    second = world.release("2").result
    world.release("3")
    world.migrations["0002"] = ADDITIVE
    world.killed("rehearse", lambda: world.release("4"))

    assert "before it changed anything" in world.rollback(62).errors[0].message
    assert world.current == "3"
    assert second
    world.rollback(to=second.release_id)
    assert world.current == "2"


def test_a_release_without_a_verdict_comes_before_the_next_one(world: World) -> None:
    """Else the next one would have it as the version to return to."""
    world.answers["2"] = [silent("health.answers")]
    world.release("2", 61)

    assert "without a verdict" in world.release("3", 62).errors[0].message
    world.rollback()
    world.release("3")


@pytest.mark.parametrize("what", ["added", "changed"])
def test_a_migration_that_was_not_rehearsed_is_not_applied(
    world: World, what: str
) -> None:
    """A release that was killed is not taken up with it; the way back goes on."""
    world.migrations |= {"0002": REWRITE, "0003": ADDITIVE}
    world.killed("migrated 0002", lambda: world.release("2"))
    world.migrations |= {"0004": ADDITIVE} if what == "added" else {}
    world.changed |= {"0003": "something else"} if what == "changed" else {}

    refused = world.release(code=62, resume=True).errors[0]

    assert "was not rehearsed" in refused.message
    assert world.database == ["0002"]
    world.rollback()
    assert world.database == []


def test_a_migration_that_changes_after_its_rehearsal_is_not_applied(
    world: World,
) -> None:
    """Nobody knows what it costs."""
    world.migrations["0002"] = ADDITIVE
    world.changing = "0002"

    assert "was not rehearsed" in world.release("2", 60).errors[0].message
    assert (world.database, world.current) == ([], "1")


@pytest.mark.parametrize("call", ["release", "resume", "rollback"])
def test_a_ledger_that_was_edited_decides_about_nothing(
    world: World, call: str
) -> None:
    """The classes in it decide whether a way back loses data."""
    world.migrations["0002"] = REWRITE
    if call == "resume":
        world.killed("deploy 2", lambda: world.release("2"))
    else:
        world.release("2")
    calls: dict[str, Callable[[], Outcome[Released]]] = {
        "release": lambda: world.release("3", 62),
        "resume": lambda: world.release(code=62, resume=True),
        "rollback": lambda: world.rollback(62),
    }
    ledger = world.folder / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace(REWRITE, ADDITIVE))

    refused = calls[call]().errors[0]

    assert "the ledger is not whole" in refused.message
    assert world.database == ["0002"]


@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_a_release_that_cannot_be_read_any_more_is_not_forgotten(
    world: World, tmp_path: Path, damage: str
) -> None:
    """On another machine a damaged copy would leave an empty record to go by."""
    (tmp_path / "store").mkdir()
    world.settings |= {
        "stores": {"a": {"url": (tmp_path / "store").as_uri()}},
        "ledger_name": "github-release",
        "state_dir": tmp_path / "one",
    }
    world.killed("deploy 2", lambda: world.release("2"))
    copy = min((tmp_path / "store" / "_ledger" / "github-release").iterdir())
    if damage == "changed":
        copy.chmod(0o600)
        copy.write_bytes(copy.read_bytes().replace(b"1", b"2", 1))
    else:
        copy.unlink()
    world.settings["state_dir"] = tmp_path / "another"

    refused = world.release("3", 62).errors[0]

    assert "nobody knows what was released" in refused.message
    assert world.release("3", 62).errors[0].message  # nor after that


def test_a_release_that_one_store_alone_has_on_record_is_not_passed_over(
    world: World, tmp_path: Path
) -> None:
    """Another machine that reads only the other store would begin over it."""
    stores = {name: tmp_path / name for name in ("a", "b")}
    for each in stores.values():
        each.mkdir()
    world.settings |= {
        "stores": {name: {"url": each.as_uri()} for name, each in stores.items()},
        "ledger_name": "github-release",
        "state_dir": tmp_path / "one",
    }
    world.release("2")
    stores["b"].rename(tmp_path / "away")
    world.settings["state_dir"] = tmp_path / "another"
    assert "store b" in world.release("3", 62).errors[0].message
    world.settings["state_dir"] = tmp_path / "one"
    world.killed("deploy 3", lambda: world.release("3"))
    (tmp_path / "away").rename(stores["b"])
    stores["a"].rename(tmp_path / "away")
    world.settings["state_dir"] = tmp_path / "a third"

    refused = world.release("4", 62).errors[0]

    assert "may be recorded there alone" in refused.message


def test_an_old_record_that_was_edited_is_in_nobodys_way(world: World) -> None:
    """A release goes by the newest ones."""
    ledger = world.folder / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace("smoke", "smoking"))
    world.release("2", 62)
    ledger.write_text(ledger.read_text().replace("smoking", "smoke"))
    world.release("2")
    ledger.write_text(ledger.read_text().replace("smoke", "smoking", 1))

    world.rollback()

    assert world.current == "1"


def test_a_release_without_an_answer_is_the_one_taken_back(world: World) -> None:
    """Its hint names the command."""
    world.release("2")
    world.answers["3"] = [silent("health.answers")]
    hint = world.release("3", 61).errors[0].hint

    assert "inv rollback" in hint
    world.rollback()
    assert world.current == "2"
    world.rollback()
    assert world.current == "1"


@pytest.mark.parametrize("is_killed", [False, True])
def test_the_version_before_the_first_release_can_be_named(
    world: World, is_killed: bool
) -> None:
    """No release is of it, but one began from it."""
    (world.folder / "ledger.jsonl").unlink()
    if is_killed:
        world.killed("deployed 2", lambda: world.release("2"))
    else:
        world.release("2")
        world.release("3")

    world.rollback(to="1")

    assert world.current == "1"


def test_a_version_is_not_the_beginning_of_an_id(world: World) -> None:
    """The release that is called so otherwise stays."""
    released = world.release("2").result
    assert released is not None
    name = released.release_id[:2]
    world.release(name)
    world.release("3")

    world.rollback(to=name)

    assert world.current == name


def test_a_release_that_was_rolled_back_is_not_taken_back_again(world: World) -> None:
    """The one before it is."""
    world.release("2")
    world.answers["3"] = [failing("health.answers")]
    world.release("3", 60)
    world.rollback()

    assert world.current == "1"


def test_migrations_of_several_releases_are_undone_newest_first(world: World) -> None:
    """Each once, also where a rollback came before."""
    first = next(e for e in release.releases(world.run))["release"]
    for version in ("2", "3"):
        world.migrations[f"000{version}"] = REWRITE
        world.release(version)

    world.rollback(to=first)

    assert world.undone == ["0003", "0002"]
    assert world.rollback(62, to=first).errors[0].message == "1 is deployed already"
    assert world.undone == ["0003", "0002"]


def test_a_release_that_was_taken_back_is_no_target(world: World) -> None:
    """Its migrations were undone with it."""
    second = world.release("2").result
    world.release("3")
    world.rollback()
    world.rollback()
    assert second
    assert "taken back" in world.rollback(62, to=second.release_id).errors[0].message


def test_a_rollback_that_was_killed_is_no_release(world: World) -> None:
    """It is not resumed; it is run again, and nothing is released before."""
    world.migrations["0002"] = REWRITE
    world.release("2")
    world.killed("deploy 1", world.rollback)

    assert "a rollback" in world.release(code=62, resume=True).errors[0].message
    assert "rollback" in world.release("3", 62).errors[0].hint
    world.rollback()
    assert (world.current, world.undone) == ("1", ["0002"])


def test_only_the_newest_release_is_taken_up_again(world: World) -> None:
    """Another one waits until it has ended."""
    world.killed("deploy 2", lambda: world.release("2"))

    assert "--resume" in world.release("3", 62).errors[0].hint
    world.release("3", 62, resume=True)
    world.rollback()
    world.release(code=62, resume=True)
    world.release("3")


def test_one_that_was_killed_before_a_change_is_in_nobodys_way(world: World) -> None:
    """It can be resumed, and another one can begin."""
    world.migrations["0002"] = ADDITIVE
    world.killed("rehearse", lambda: world.release("2"))

    world.release("3")
    world.release(code=62, resume=True)


@pytest.mark.parametrize("at", ["undo", "deploy 1", "smoke of the way back"])
def test_a_way_back_that_was_killed_goes_on(world: World, at: str) -> None:
    """Not forward to the version that had failed."""
    world.migrations["0002"] = REWRITE
    world.answers["2"] = [failing("health.answers")]
    world.killed(at, lambda: world.release("2"))

    outcome = world.release(code=60, resume=True)

    assert outcome.result
    assert [each.status for each in outcome.result.steps][-2:] == ["ok", "passed"]
    assert (world.current, world.undone) == ("1", ["0002"])
    assert status(world) == "rolled-back"


def test_a_way_back_without_a_failed_step_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began because a step could not be put on record."""
    world.migrations["0002"] = REWRITE
    real = RunLedger.append
    monkeypatch.setattr(
        RunLedger,
        "append",
        lambda self, record: (
            record.details.get("step") != "deploy" and real(self, record)
        ),
    )
    world.killed("undo", lambda: world.release("2"))
    monkeypatch.setattr(RunLedger, "append", real)

    world.release(code=60, resume=True)

    assert (world.current, world.database) == ("1", [])


def test_what_was_undone_is_not_on_record_as_applied(world: World) -> None:
    """The record and the report say what the database has after the way back."""
    world.migrations |= {"0002": REWRITE}
    world.answers["2"] = [failing("health.answers")]

    made = world.release("2", 60).result

    assert made
    assert (made.schema, made.applied) == ("", [])
    assert world.run.ledger.entries()[-1].details["applied"] == []


def test_a_release_without_an_answer_can_be_resumed(world: World) -> None:
    """It is probed again, and nothing is deployed twice."""
    world.answers["2"] = [silent("health.answers")]
    world.release("2", 61)
    world.release(code=61, resume=True)
    world.answers.clear()

    world.release(code=0, resume=True)

    assert world.deployed == ["1", "2"]
    world.release(code=62, resume=True)


def test_what_a_killed_attempt_applied_is_undone(world: World) -> None:
    """The process was lost before it could record the migration."""
    world.migrations["0002"] = REWRITE
    world.killed("migrated 0002", lambda: world.release("2"))
    world.answers["2"] = [failing("health.answers")]

    outcome = world.release(code=60, resume=True)

    assert (world.undone, world.database) == (["0002"], [])
    assert outcome.result
    assert outcome.result.verdict.startswith("downgrade-first")


@pytest.mark.parametrize(
    ("kind", "code", "left"),
    [(ADDITIVE, 60, ["0002"]), (REWRITE, 60, []), (DESTRUCTIVE, 69, ["0002"])],
)
def test_a_failed_migration_takes_back_those_before_it(
    world: World, kind: str, code: int, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same verdict, though nothing was deployed; then the service is probed."""
    world.migrations |= {"0002": kind, "0003": ADDITIVE}
    world.errors["migrate 0003"] = MigrationFailed(
        "0003 failed", said="row (1, secret)"
    )
    for name in ("backup", "drill"):
        made = SimpleNamespace(manifest=SimpleNamespace(backup_id="shop-2"))
        one = SimpleNamespace(sources=[_outcome(made)])
        monkeypatch.setattr(pipeline, name, lambda *_, one=one: _outcome(one))

    outcome = world.release("2", code)

    assert (world.database, world.deployed) == (left, ["1"])
    assert "secret" in outcome.errors[0].message
    assert "secret" not in (world.folder / "ledger.jsonl").read_text()
    assert outcome.result
    probed = any("before" in each.name for each in outcome.result.steps)
    assert probed == (code == 60)
    assert ("0002 stays" in outcome.errors[0].message) == (kind == ADDITIVE)


@pytest.mark.parametrize(
    ("kind", "code"), [(ADDITIVE, 60), (REWRITE, 69), (DESTRUCTIVE, 69)]
)
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_migration_without_a_transaction_may_be_half_applied(
    world: World,
    kind: str,
    code: int,
    is_killed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody says that nothing was changed, and no way back undoes the half of it."""
    for name in ("backup", "drill"):
        made = SimpleNamespace(manifest=SimpleNamespace(backup_id="shop-2"))
        one = SimpleNamespace(sources=[_outcome(made)])
        monkeypatch.setattr(pipeline, name, lambda *_, one=one: _outcome(one))
    world.migrations["0002"], world.in_pieces = kind, {"0002"}
    asked = len(world.asked)

    if is_killed:
        world.killed("migrate 0002", lambda: world.release("2"))
        outcome = world.rollback(code if code == 69 else 0)
    else:
        world.errors["migrate 0002"] = MigrationFailed("the second statement failed")
        outcome = world.release("2", code)
        said = outcome.errors[0].message
        assert "migration 0002 may be half applied" in said
        assert "nothing was changed" not in said

    assert outcome.result
    assert len(world.asked) - asked == (2 if code == 60 else 1)
    assert outcome.result.verdict.startswith(
        "image-safe" if code == 60 else "restore-only: migration 0002 may be half"
    )


@pytest.mark.parametrize(
    "error",
    [ReleaseRefused("a pg_dump: migrations would wait"), DatabaseError("no route")],
)
def test_a_migration_that_did_not_begin_is_not_half_applied(
    world: World, error: OpskitError
) -> None:
    """A pg_dump that begins during the release costs no restore."""
    world.migrations["0002"], world.in_pieces = REWRITE, {"0002"}
    world.errors["migrate"] = error

    outcome = world.release("2", 60)

    assert "nothing was changed" in outcome.errors[0].message
    assert world.deployed == ["1"]


def test_a_rollback_knows_which_migration_did_not_begin(world: World) -> None:
    """Also where the release was killed on its way back."""
    migrations = {"tool": "sql", "database": "shop"}
    world.settings["release"] = {"order": "deploy-first", "migrations": migrations}
    world.migrations["0002"], world.in_pieces = REWRITE, {"0002"}
    world.errors["migrate"] = ReleaseRefused("a pg_dump: migrations would wait")
    world.killed("deploy 1", lambda: world.release("2"))

    world.rollback()

    assert world.current == "1"


def test_a_refusal_does_not_hide_what_a_killed_attempt_left(world: World) -> None:
    """The attempt before it had begun to apply the migration."""
    world.migrations["0002"], world.in_pieces = REWRITE, {"0002"}
    world.killed("migrate 0002", lambda: world.release("2"))
    world.errors["migrate"] = ReleaseRefused("a pg_dump: migrations would wait")

    said = world.release(code=69, resume=True).errors[0].message

    assert "migration 0002 may be half applied" in said


@pytest.mark.parametrize(
    "error", [DeployFailed("no"), OSError(28, "No space"), MigrationFailed("no")]
)
def test_a_rollback_that_fails_says_so(world: World, error: BaseException) -> None:
    """With the code at which a person is called."""
    world.migrations["0002"] = REWRITE
    world.release("2")
    world.errors["undo" if isinstance(error, MigrationFailed) else "deploy 1"] = error

    world.rollback(69)

    assert status(world) == "failed"
    world.rollback()


def test_a_version_whose_schema_is_gone_is_refused(world: World) -> None:
    """It is not known to run on less than the database had while it ran."""
    world.migrations |= {"0001": ADDITIVE}
    world.release("2")
    world.migrations |= {"0002": ADDITIVE}
    made = world.release("3").result
    assert made
    assert (made.schema_before, made.schema) == ("0001", "0002")
    world.database = ["0002"]  # by hand
    refused = world.rollback(62)
    assert "2 is only known to run with migration 0001" in refused.errors[0].message
    assert world.current == "3"

    world.database = ["0001", "0002"]
    world.rollback()
    assert world.current == "2"


@pytest.mark.parametrize(("kind", "code"), [(ADDITIVE, 0), (REWRITE, 62)])
def test_a_version_that_takes_all_connections_is_taken_back(
    world: World, kind: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all of its migrations are additive: then none has to be known."""
    world.migrations |= {"0002": kind}
    world.release("2")

    def down(_run: Run) -> list[str]:
        raise DatabaseError("too many clients already")

    monkeypatch.setattr(schema, "applied", down)
    world.rollback(code)

    assert world.current == ("2" if code else "1")


def test_a_release_that_takes_all_connections_goes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its migration may be applied; that is what it says."""
    world.migrations |= {"0002": ADDITIVE}
    world.answers["2"] = [failing("health.answers")]

    def down(_run: Run) -> list[str]:
        if world.current == "2":
            raise DatabaseError("too many clients already")
        return world.database

    monkeypatch.setattr(schema, "applied", down)
    (error,) = world.release("2", 60).errors

    assert "1 runs again; 0002 may be applied" in error.message


def test_what_a_version_needs_can_be_declared(world: World) -> None:
    """The declaration of its own release counts, not that of the newest one."""
    world.migrations |= {"0001": ADDITIVE, "0002": ADDITIVE}
    release_settings = world.run.settings.release.model_dump(exclude_defaults=True)
    world.settings["release"] = release_settings | {"oldest_schema": "0001"}
    world.release("2")
    world.settings["release"] = release_settings | {"oldest_schema": "0009"}
    refused = world.release("3", 62)
    assert "3 is declared to need migration 0009" in refused.errors[0].message
    world.settings["release"] = release_settings | {"oldest_schema": "0002"}
    world.release("3")
    world.database = ["0001"]
    world.rollback()

    assert world.current == "2"


def test_a_lock_that_was_lost_is_taken_again(world: World) -> None:
    """If another run has it by then, nothing goes on and nothing goes back."""
    world.errors["held"] = DatabaseError("the connection is lost")
    world.release("2")
    assert world.current == "2"

    real, held = world.meet, {"migrated 0002": DatabaseError("the connection is lost")}

    def meet(name: str) -> None:
        if name in held:
            world.errors |= {"held": held[name], "lock": LockHeld("another release")}
        real(name)

    world.migrations["0002"] = ADDITIVE
    world.meet = meet  # type: ignore[method-assign]
    world.release("3", 11)
    assert (world.deployed, world.database) == (["1", "2"], ["0002"])
    world.meet = real  # type: ignore[method-assign]
    world.release(resume=True)
    assert world.current == "3"


@pytest.mark.parametrize(
    ("operation", "seconds", "code"),
    [("start", 1, 0), ("start", 119, 0), ("start", 125, 11), ("release", 1, 11)],
)
def test_a_start_of_the_service_is_waited_for(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    seconds: float,
    code: int,
) -> None:
    """Cron begins one every minute, just when a version has to be taken back."""
    world.release("2")
    passed, folder = 0.0, world.run.state_dir / "locks"
    with ExitStack() as stack:
        hold = locks.exclusive(
            folder, "release", operation=operation, run_id="1", now=world.run.now()
        )
        stack.enter_context(hold)

        def sleep(more: float) -> None:
            nonlocal passed
            passed += more
            if passed > seconds:
                stack.close()

        passing = SimpleNamespace(monotonic=lambda: passed, sleep=sleep)
        monkeypatch.setattr(release, "time", passing, raising=False)

        world.rollback(code)

    assert world.current == ("2" if code else "1")
    assert (passed > 0) == (operation == "start")


@pytest.mark.parametrize("kind", [ADDITIVE, REWRITE])
@pytest.mark.parametrize("is_release", [True, False])
def test_a_way_back_makes_sure_of_the_lock(
    world: World, kind: str, is_release: bool
) -> None:
    """Another run may have released since the connection was lost."""
    world.migrations["0002"] = kind
    world.answers["2"] = [failing("a")] if is_release else []
    real = world.meet

    def meet(name: str) -> None:
        if name == ("smoke 2" if is_release else "applied"):
            world.errors["held"] = DatabaseError("the connection is lost")
            world.errors["lock"] = LockHeld("another release")
        real(name)

    if is_release:
        world.meet = meet  # type: ignore[method-assign]
        world.release("2", 11)
    else:
        world.release("2")
        world.meet = meet  # type: ignore[method-assign]
        world.rollback(11)

    assert (world.current, world.database) == ("2", ["0002"])
    world.meet = real  # type: ignore[method-assign]
    world.errors.clear()
    world.errors["held"] = DatabaseError("the connection is lost")
    world.release(code=60, resume=True) if is_release else world.rollback()
    assert world.current == "1"


@pytest.mark.parametrize("at", ["rehearse", "migrate 0002"])
def test_what_others_deployed_meanwhile_is_not_replaced(
    world: World, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release knows nothing of it, and would return to another version."""
    world.migrations["0002"] = ADDITIVE
    if at == "rehearse":
        real = world.rehearse

        def rehearse(*given: Any) -> Outcome[Any]:
            world.current = "9"
            return real(*given)

        monkeypatch.setattr(pipeline, "rehearse", rehearse)
        refused = world.release("2", 62)
    else:
        world.killed(at, lambda: world.release("2"))
        world.current = "9"
        refused = world.release(code=62, resume=True)

    assert "9 is current by now, which was 1" in refused.errors[0].message
    assert (world.current, world.database) == ("9", [])


def test_a_way_back_needs_no_lock_in_a_database_that_is_down(world: World) -> None:
    """A release does, before anything of it is begun."""
    world.release("2")
    world.errors["lock"] = DatabaseError("the server is down")
    assert "the server is down" in world.release("3", 62).errors[0].message
    world.errors["lock"] = DatabaseError("the server is down")
    world.rollback()

    assert world.deployed == ["1", "2", "1"]


@pytest.mark.parametrize("found", [failing("a"), silent("a")])
def test_a_version_before_that_fails_its_probes_is_a_failed_rollback(
    world: World, found: Check
) -> None:
    """Unless it failed them before the release."""
    world.release("2")
    world.answers["1"] = [found]
    hint = world.rollback(69).errors[0].hint

    assert "rollback" not in hint


def test_what_failed_before_the_release_does_not_count_in_a_rollback(
    world: World,
) -> None:
    """The version before had it already."""
    world.answers["1"] = world.answers["2"] = [failing("a")]
    world.release("2")

    world.rollback()


def test_without_stores_a_release_is_a_release(world: World) -> None:
    """The report lies in the state folder."""
    world.settings["release"] = {}
    outcome = world.release("2")

    assert outcome.result
    assert outcome.result.report
    assert outcome.result.report.exists()


def test_a_full_disk_for_the_report_loses_no_status(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version runs, and the ledger says so."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reports, "keep", full)
    world.release("2", 10)

    assert status(world) == "released"
    world.answers["3"] = [failing("a")]
    world.release("3", 60)
    assert status(world) == "rolled-back"


def test_what_the_machine_refuses_is_rolled_back(world: World) -> None:
    """As any other failure of a step."""
    world.errors["deployed 2"] = OSError(28, "No space left on device")

    world.release("2", 60)

    assert world.current == "1"


def test_a_failure_before_does_not_hide_that_nothing_answers(world: World) -> None:
    """One probe failed before, another one gives no answer now."""
    world.answers["1"] = [failing("a")]
    world.answers["2"] = [failing("a"), silent("b")]

    world.release("2", 61)


def test_a_version_that_is_not_confirmed_is_not_judged(world: World) -> None:
    """Whoever answers wrong may be another version."""
    world.answers["2"] = [silent("version"), failing("tls.certificate")]

    world.release("2", 61)

    assert world.current == "2"


def test_probes_that_cannot_be_asked_say_nothing_of_the_version(world: World) -> None:
    """A key that has become unreadable is no fault of the release."""
    world.unasked = {"2"}
    outcome = world.release("2", 61)
    assert "the key cannot be read" in outcome.errors[0].message
    assert world.current == "2"

    world.unasked = {"1"}
    world.rollback(69)
    assert world.current == "1"


def test_without_probes_before_nothing_is_released(world: World) -> None:
    world.unasked = {"1"}
    world.release("2", 62)
    assert world.current == "1"


def test_a_service_that_names_no_version_is_probed_without(world: World) -> None:
    """There is nothing to confirm."""
    world.settings["smoke"] = {"url": "http://127.0.0.1:1", "version": {"field": ""}}

    world.release("2")

    assert world.asked[-1] == ""


@pytest.mark.parametrize("at", ["migrate 0002", "deploy 2", "smoke 2"])
def test_an_interruption_names_the_step(world: World, at: str) -> None:
    """And what to do; the release can be resumed."""
    world.migrations["0002"] = ADDITIVE
    world.errors[at] = KeyboardInterrupt()

    (error,) = world.release("2", 130).errors

    assert at.split()[0] in error.message
    assert "--resume" in error.hint
    assert "inv rollback" in error.hint
    assert world.run.ledger.entries()[-1].outcome == "interrupted"
    world.release(resume=True)


def test_an_interrupted_rollback_says_how_to_go_on(world: World) -> None:
    """By the same command."""
    world.release("2")
    world.errors["deploy 1"] = KeyboardInterrupt()

    assert "inv rollback" in world.rollback(130).errors[0].hint
    world.rollback()
    assert world.current == "1"


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_rollback_to_an_early_version_goes_on_to_it(
    world: World, is_killed: bool
) -> None:
    """Each hint names the version: the one before the newest release is another one."""
    world.release("2")
    world.release("3")
    command = "`inv rollback --to 1`"
    if is_killed:
        world.killed("deploy 1", lambda: world.rollback(to="1"))
    else:
        world.errors["deploy 1"] = KeyboardInterrupt()
        assert command in world.rollback(130, to="1").errors[0].hint

    assert command in world.release("4", 62).errors[0].hint
    assert command in world.release(code=62, resume=True).errors[0].hint
    world.rollback(to="1")
    assert world.current == "1"


def test_an_interruption_before_a_change_stays_one(world: World) -> None:
    """Nothing half-done is left."""
    world.migrations["0002"] = ADDITIVE
    world.errors["rehearse"] = KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        world.release("2")


@pytest.mark.parametrize(("step", "code"), [("baseline smoke", 62), ("smoke", 60)])
def test_a_step_that_cannot_be_recorded_is_not_done(
    world: World, step: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release ends before it; the way back is gone all the same."""
    real, full = RunLedger.append, False

    def append(self: RunLedger, record: Any) -> bool:
        nonlocal full
        full = full or record.details.get("step") == step
        return not full and real(self, record)

    monkeypatch.setattr(RunLedger, "append", append)
    asked = len(world.asked)
    outcome = world.release("2", code)

    assert step in outcome.errors[0].message
    assert world.current == "1"
    assert len(world.asked) - asked == (0 if code == 62 else 2)


def test_a_first_release_that_fails_speaks_of_no_restore(
    world: World, tmp_path: Path
) -> None:
    """Nothing was migrated, and there is no version before."""
    world.folder, world.current = tmp_path / "other", ""
    world.answers["2"] = [failing("a")]

    hint = world.release("2", 69).errors[0].hint

    assert "restore" not in hint


@pytest.mark.parametrize("call", ["release", "rollback"])
def test_a_tool_that_fails_before_a_change_is_a_refusal(
    world: World, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was rolled back: nothing had changed."""
    world.release("2")

    def broken() -> str:
        raise DeployFailed("version.sh ended with 1")

    monkeypatch.setattr(
        release,
        "deployer_of",
        lambda *_: SimpleNamespace(require=world.require, current=broken),
    )
    world.release("3", 62) if call == "release" else world.rollback(62)


def test_what_is_no_version_is_refused_before_anything(world: World) -> None:
    """No step has begun."""
    before = len(world.run.ledger.entries())

    world.release("feature/x", 62)

    (entry,) = world.run.ledger.entries()[before:]
    assert "step" not in entry.details


def test_migrations_are_taken_back_with_patience(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the lock of migrations, the last one first; none from under a later one."""
    done: list[str] = []
    waits = [MigrationFailed("waited", sqlstate=database.WAITED)] * 2

    class Tool:
        def revisions(self) -> list[Any]:
            return [SimpleNamespace(id="0002"), SimpleNamespace(id="0003")]

        def undo(self, _url: str, revision: Any, _bounds: Any) -> None:
            if waits:
                raise waits.pop()
            done.append(revision.id)

    @contextmanager
    def locked(*_: object) -> Iterator[None]:
        done.append("locked")
        yield
        done.append("unlocked")

    monkeypatch.setattr(migrations, "tool_of", lambda *_: Tool())
    monkeypatch.setattr(migrations, "locked", locked)
    monkeypatch.setattr(migrations, "applied", lambda _run: ["0002", "0003"])
    monkeypatch.setattr(database, "invalid_indexes", lambda _url: set())
    monkeypatch.setattr(database, "drop_indexes", lambda *_, **_k: None)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    migrations.undo(world.run, ["0002", "0003"])

    assert done == ["locked", "0003", "0002", "unlocked"]
    done.clear()
    with pytest.raises(ReleaseRefused, match="migration 0003 was applied after 0002"):
        migrations.undo(world.run, ["0002"])
    assert done == ["locked"]
    waits += [MigrationFailed("waited", sqlstate=database.WAITED)] * 5
    with pytest.raises(MigrationFailed):
        migrations.undo(world.run, ["0003"])
    waits[:] = [MigrationFailed("syntax error")]
    with pytest.raises(MigrationFailed):
        migrations.undo(world.run, ["0003"])


def test_a_target_that_is_gone_is_found_out_before_a_downgrade(world: World) -> None:
    """The new version would run on, on the old schema."""
    world.migrations = {"0001": REWRITE}
    world.release("2")
    world.gone = {"1"}

    world.rollback(62)
    world.migrations["0002"] = REWRITE
    world.gone = {"2"}
    world.answers["3"] = [failing("health.ready")]
    outcome = world.release("3", 69)

    assert "the rollback failed: no version" in outcome.errors[0].message
    assert (world.undone, world.current) == ([], "3")


def test_a_rollback_says_which_configuration_differs(world: World) -> None:
    """Not what is in it; and only what differs from the release of that version."""
    same, changed, lost = (world.folder / each for each in ("same", "app.env", "lost"))
    for each in (same, changed, lost):
        each.write_text("PASSWORD=xyzzy")
    names = [str(each) for each in (same, changed, lost)]
    release_settings = {"configuration": [*names, "never-there"]}
    world.settings = {"release": release_settings}
    world.release("2")
    world.release("3")
    assert "xyzzy" not in str([each.details for each in world.run.ledger.entries()])

    changed.write_text("PASSWORD=plugh")
    lost.unlink()
    outcome = world.rollback()

    assert outcome.result is not None
    assert outcome.result.as_json()["differing"] == sorted(names[1:])
    assert "has changed since" in (outcome.result.report or Path()).read_text()
    assert world.rollback().result.differing == []  # type: ignore[union-attr]
