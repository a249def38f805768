"""Pipeline: the steps of a release in their order, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from opskit.checks import count
from opskit.config import configuration_path
from opskit.errors import (
    DatabaseError,
    Interrupted,
    LockHeld,
    OpskitError,
    ReleaseFailed,
    ReleaseRefused,
    RollbackFailed,
    SmokeFailed,
)
from opskit.log import logger
from opskit.operations.backup import BackupRequest, backup
from opskit.operations.drill import RestoreDrillRequest, drill
from opskit.operations.history import configuration_of
from opskit.operations.migrate import (
    MigrateRequest,
    RehearseRequest,
    applied,
    drilled_sets,
    migrate,
    rehearse,
    require_no_dump,
    undo,
)
from opskit.operations.run import Run
from opskit.operations.schema import (
    find_applied,
    find_applied_or_assume,
    half_applied,
    require_schema_of,
)
from opskit.operations.smoke import SmokeRequest, smoke
from opskit.operations.steps import (
    BASELINE,
    CHANGES,
    DEPLOY_BEFORE,
    DONE_BEFORE,
    DOWNGRADE,
    SMOKE_BEFORE,
    UNTOUCHED,
    Step,
    Steps,
    refusing,
    required,
)
from opskit.probes.runner import names
from opskit.release.classes import Kind, require_schema
from opskit.release.classes import verdict as verdict_of
from opskit.release.configuration import configuration, differing, hashes
from opskit.release.deployers import Deployer
from opskit.release.revisions import Revision
from opskit.release.tools import tool_of

_NO_VERDICT_HINT = (
    "Look at the service. `inv release --resume` probes it again, `inv rollback` takes "
    "the release back."
)


class Pipeline:
    """The steps of a release in their order, and those of the way back."""

    def __init__(
        self,
        run: Run,
        steps: Steps,
        deployer: Deployer,
        *,
        require_alone: Callable[[], None] = lambda: None,
    ) -> None:
        self._run, self._steps, self._made = run, steps, steps.made
        self._require_alone = require_alone
        self._settings = run.settings.release
        self._migrates = bool(self._settings.migrations.tool)
        self._deployer = deployer

    def plan(self) -> list[str]:
        """Return the names of the steps."""
        before = ["preflight", "restore point", "rehearse"] if self._migrates else []
        changes = ["migrate", "deploy"] if self._migrates else ["deploy"]
        if self._settings.order == "deploy-first":
            changes.reverse()
        after = ["contract"] if self._migrates else []
        return [*before, BASELINE, *changes, "smoke", *after]

    def require_as_left(self) -> None:
        """Before a release is taken up again: ask whether what it knows still holds.

        Raises:
            ReleaseRefused: a migration came or was changed after the rehearsal, or
                another version was deployed meanwhile.
        """
        with refusing():
            if "deploy" not in self._steps.known:
                self._require_previous()
            if self._steps.is_done("rehearse"):
                request = MigrateRequest(dry_run=True, rehearsed=self._made.rehearsed)
                required(migrate(self._run, request))

    def _require_previous(self) -> None:
        """Refuse to go on from another version than the one that the release saw."""
        current, previous = self._deployer.current(), self._made.previous
        if current != previous:
            raise ReleaseRefused(
                f"{current or 'no version'} is current by now, which was "
                f"{previous or 'none'} when the release began",
                hint="Somebody else has deployed. Begin a new release: `inv release "
                "--version REF`; if this one has changed anything, take that back "
                "first: `inv rollback`.",
            )

    def release(self, *, failure: str = "") -> str:
        """Do all steps; return the status of the release.

        With a `failure` an earlier run has begun to take it back: that goes on.

        Raises:
            ReleaseRefused: before anything changed.
            ReleaseFailed: it was rolled back.
            RollbackFailed: that failed too.
            SmokeFailed: the service gives no answer that says how it is.
            LockHeld: another run releases by now; nothing was taken back.
            Interrupted: it was stopped after something had changed.
        """
        hint = "`inv release --resume` goes on, `inv rollback` takes the release back."
        with self._interruptible(hint):
            try:
                if failure:
                    raise ReleaseFailed(failure)
                self._go_forward()
            except (SmokeFailed, LockHeld):
                raise
            except OpskitError as error:
                if not self._steps.have_changed:
                    raise ReleaseRefused(
                        error.summary, said=error.said, hint=error.hint
                    ) from error
                self._roll_back(error)
        return "released"

    def take_back(self, *, deployed: bool) -> str:
        """Have the version of this rollback run; return the status.

        Raises:
            ReleaseRefused: before anything changed.
            RollbackFailed: only a restore would do; or a step failed.
            LockHeld: another run releases by now.
            Interrupted: it was stopped after something had changed.
        """
        with refusing():
            find_applied_or_assume(self._run, self._made)
            require_schema_of(self._run, self._made, self._made.version)
        try:
            go_on = f"`inv rollback --to {self._made.version}` goes on."
            with self._interruptible(go_on):
                self._go_back(self._made.version, deployed=deployed)
        except (RollbackFailed, Interrupted, LockHeld):
            raise
        except OpskitError as error:
            raise RollbackFailed(
                error.summary, said=error.said, hint=error.hint
            ) from error
        return "rolled-back"

    @contextmanager
    def _interruptible(self, hint: str) -> Iterator[None]:
        """Say of an interruption in which step it came, once something has changed."""
        try:
            yield
        except KeyboardInterrupt as error:
            begun = [each.name for each in self._made.steps if each.has_begun]
            if not (begun and self._steps.have_changed):
                raise
            raise Interrupted(
                f"interrupted in the step {begun[-1]}", hint=hint
            ) from error

    def _go_forward(self) -> None:
        todo: dict[str, Callable[[Step], None]] = {
            "preflight": self._preflight,
            "restore point": self._restore_point,
            "rehearse": self._rehearse,
            BASELINE: self._baseline,
            "migrate": lambda step: self._migrate(step, expand_only=True),
            "deploy": lambda step: self._deploy(
                step, self._made.version, self._deployer.deploy
            ),
            "smoke": lambda step: self._probe(step, self._made.version),
            "contract": lambda step: self._migrate(step, expand_only=False),
        }
        for name in self.plan():
            if name in CHANGES:
                self._require_alone()
                if not self._steps.have_changed:
                    self._require_previous()
            with self._steps.step(name) as step:
                if step.status != DONE_BEFORE:
                    todo[name](step)

    def _preflight(self, step: Step) -> None:
        """Ask what is pending and applicable, and who would be waited for."""
        done = required(migrate(self._run, MigrateRequest(dry_run=True)))
        step.details["pending"] = [each.id for each in done.revisions]
        step.details["blockers"] = [str(each) for each in done.blockers]
        there = applied(self._run)
        step.details["schema_before"] = there[-1] if there else ""
        require_schema(
            self._made.version,
            declared=self._settings.oldest_schema,
            learnt="",
            present=[*there, *step.details["pending"]],
        )
        require_no_dump(done.blockers)

    def _restore_point(self, step: Step) -> None:
        source = self._settings.migrations.database
        sets = drilled_sets(self._run, source)
        newest = max(sets, key=lambda each: each.manifest.snapshot_at, default=None)
        oldest_at = self._run.now() - self._settings.restore_point_age
        if newest is None or newest.manifest.snapshot_at < oldest_at:
            if self._settings.take_restore_point:
                step.details["restore_point"] = self._new_restore_point()
                return
            age = "no drilled set" if newest is None else "no drilled set that is new"
            raise ReleaseRefused(
                f"{source} has {age} enough to return to",
                hint=f"`inv backup --database {source}`, then "
                f"`inv restore-drill --database {source}`.",
            )
        step.details["restore_point"] = newest.manifest.backup_id

    def _new_restore_point(self) -> str:
        """Take a backup, drill it, and return its ID."""
        source = self._settings.migrations.database
        made = required(backup(self._run, BackupRequest(database=source)))
        (one,) = made.sources
        backup_id: str = required(one).manifest.backup_id
        required(drill(self._run, RestoreDrillRequest(backup=backup_id)))
        return backup_id

    def _rehearse(self, step: Step) -> None:
        if not self._made.pending:
            step.status = "nothing to migrate"
            return
        request = RehearseRequest(backup=self._made.restore_point)
        done = required(rehearse(self._run, request))
        kinds = {name: str(kind) for name, kind in done.rehearsal.kinds.items()}
        step.details["classes"] = kinds
        step.details["rehearsed"] = {e.id: e.sha256 for e in done.rehearsal.revisions}
        if Kind.DESTRUCTIVE in kinds.values():
            step.details["restore_point"] = self._new_restore_point()

    def _baseline(self, step: Step) -> None:
        if not self._run.settings.smoke.url:
            step.status = "not configured"
            return
        outcome = smoke(self._run, SmokeRequest(report=self._report_of(step)))
        if outcome.result is None:
            required(outcome)
            return
        step.details["failed"] = [e.name for e in outcome.result.gating if e.failed]
        step.status = outcome.result.status

    def _report_of(self, step: Step) -> str:
        return f"{step.name.replace(' ', '-')}-{self._run.run_id}"

    def _probe(self, step: Step, version: str) -> None:
        """Ask the service; only what fails now and did not before is a failure."""
        settings = self._run.settings.smoke
        if not settings.url:
            step.status = "not configured"
            return
        named = version if settings.version.field else ""
        request = SmokeRequest(version=named, report=self._report_of(step))
        outcome = smoke(self._run, request)
        if outcome.result is None:
            raise SmokeFailed(
                f"{version} is deployed, and could not be probed: "
                f"{outcome.errors[0].message}",
                hint=_NO_VERDICT_HINT,
            )
        gating = outcome.result.gating
        silent = [each.name for each in gating if not each.failed]
        failed = [each.name for each in gating if each.failed]
        step.details["failed"] = failed
        new = [each for each in failed if each not in self._made.failed_before]
        if new and "version" not in silent:
            raise ReleaseFailed(
                f"the service newly fails {count(len(new), 'probe')}: {new[0]}",
                hint=f"`inv smoke --explain {new[0]}`",
            )
        other = names(settings) if named and "version" in silent else ""
        if other not in ("", named):
            raise ReleaseFailed(
                f"{version} was deployed, and the service names {other}",
                hint="See what the deployment tool says.",
            )
        if silent:
            raise SmokeFailed(
                f"{version} is deployed, and nothing says whether it works: "
                f"{silent[0]} is inconclusive",
                hint=_NO_VERDICT_HINT,
            )
        step.status = outcome.result.status

    def _migrate(self, step: Step, *, expand_only: bool) -> None:
        def begin() -> None:
            self._made.migrated[step.name] = False
            step.details.pop(UNTOUCHED, None)

        # A refusal, say because a pg_dump runs, leaves nothing half applied.
        if step.name not in self._made.migrated:
            step.details[UNTOUCHED] = True
        request = MigrateRequest(
            expand_only=expand_only, rehearsed=self._made.rehearsed
        )
        done = required(migrate(self._run, request, on_begin=begin))
        step.details["applied"] = list(done.seconds)
        if not done.revisions:
            step.status = "nothing to migrate"
        self._made.migrated[step.name] = True
        self._made.learn(step.name, step.details)
        find_applied(self._run, self._made)

    def _configuration(self) -> dict[str, bytes]:
        base = configuration_path().resolve().parent
        return configuration(self._settings, self._deployer, base)

    def _deploy(self, step: Step, version: str, deploy: Callable[[str], str]) -> None:
        step.details["deployed"] = version
        step.details["configuration"] = hashes(self._configuration())
        if step.name == "deploy":
            step.details["oldest_schema"] = self._settings.oldest_schema
        step.details["deployment"] = deploy(version)
        current = self._deployer.current()
        if current != version:
            raise ReleaseFailed(
                f"{version} was deployed, and {current or 'nothing'} is current",
                hint="See what the deployment tool says.",
            )

    def _roll_back(self, error: OpskitError) -> None:
        """Take the release back, and raise what it failed with."""
        deployed = "deploy" in self._steps.begun
        try:
            find_applied_or_assume(self._run, self._made)
            require_schema_of(self._run, self._made, self._made.previous)
            back = self._go_back(self._made.previous, deployed=deployed)
        except (Interrupted, LockHeld):
            raise
        except OpskitError as second:
            raise RollbackFailed(
                f"{error.summary}; and the rollback failed: {second.summary}",
                said="; ".join(filter(None, (error.said, second.said))),
                hint=second.hint,
            ) from error
        raise ReleaseFailed(
            f"{error.summary}; {back}", said=error.said, hint=error.hint
        ) from error

    def _go_back(self, version: str, *, deployed: bool) -> str:
        """Have a version run that ran before; return what became of it.

        Raises:
            OpskitError: it is not known to run.
        """
        made = self._made
        known = self._known()
        half = half_applied(made, known)
        if not (deployed or made.applied or half):
            return "nothing was changed"
        verdict, reason = verdict_of(made.applied, made.kinds, known, half=half)
        made.verdict = f"{verdict}: {reason}"
        if verdict == "restore-only":
            point = made.restore_point or "ID"
            raise RollbackFailed(
                f"the version before {'may be unable to' if half else 'cannot'} run "
                f"on this schema: {reason}",
                hint=f"A restore loses what was written since {point}: "
                f"`inv restore --backup {point} --to TARGET --replace`.",
            )
        if deployed and version:
            self._deployer.require(version)
        if verdict == "downgrade-first":
            self._require_alone_to_return()
            with self._steps.step(DOWNGRADE, is_way_back=True) as step:
                self._undo(step)
        if deployed and not version:
            raise RollbackFailed(
                "there is no version before",
                hint="Release a version that works: `inv release --version REF`.",
            )
        if deployed:
            self._require_alone_to_return()
            with self._steps.step(DEPLOY_BEFORE, is_way_back=True) as step:
                then = configuration_of(self._run.ledger.entries(), version)
                made.differing = differing(then, self._configuration())
                self._deploy(step, version, self._deployer.return_to)
        if version:
            self._probe_before(version)
        back = f"{version} runs again" if deployed else "nothing was deployed"
        if half:
            back = f"{back}; migration {half} may be half applied"
        if made.applied and verdict == "image-safe":
            stays = "stays" if made.schema else "may be"
            return f"{back}; {', '.join(made.applied)} {stays} applied"
        return back

    def _require_alone_to_return(self) -> None:
        """Make sure of the lock, unless the database is down: that is no reason."""
        try:
            self._require_alone()
        except DatabaseError as error:
            logger().warning("the lock of releases is not sure", reason=error.message)

    def _undo(self, step: Step) -> None:
        """Take back the migrations; what the database has then goes on record."""
        made, undone = self._made, self._made.applied[::-1]
        try:
            undo(self._run, made.applied)
            made.applied, made.schema = [], ""
        finally:
            with suppress(OpskitError):
                find_applied(self._run, made)
        step.details["undone"] = undone

    def _probe_before(self, version: str) -> None:
        with self._steps.step(SMOKE_BEFORE, is_way_back=True) as step:
            try:
                self._probe(step, version)
            except SmokeFailed as error:
                raise error.replace(
                    hint="Look at the service, and probe it again: `inv smoke`."
                ) from error

    def _known(self) -> Sequence[Revision]:
        if not (self._made.applied or self._made.migrated):
            return ()
        base = configuration_path().resolve().parent
        return tool_of(self._settings.migrations, base).revisions()
