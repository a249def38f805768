"""Runs a drill: an equal copy of a set in a throw-away server, then mutants in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NoReturn

from opskit.catalog.manifest import DatabaseManifest
from opskit.checks import Check, compare, count, not_checked
from opskit.compare.contents import RestoredCopy
from opskit.config import DrillSettings
from opskit.drill import comparison
from opskit.drill.report import DrillEvidence, DrillRecord
from opskit.drill.servers import (
    DrillServer,
    opening_server,
    place_beside,
)
from opskit.errors import DatabaseError, IntegrityError, ServerFault
from opskit.log import logger
from opskit.mutants.planting import plant
from opskit.preflight.concessions import Concessions, Failure
from opskit.preflight.shortages import NEVER_DONE_WITHOUT, Shortage
from opskit.progress import bar
from opskit.restore.engine import (
    Bound,
    CopyRequest,
    Fetched,
    NoProgress,
    Restored,
    restored,
)
from opskit.restore.fill import Filled
from opskit.restore.job import FillJob
from opskit.restore.make import with_shortages
from opskit.restore.surroundings import Place

_CONTAINER_HINT = 'server = "container" in [drill] runs any image. '


@dataclass(frozen=True, kw_only=True)
class DrillRequest(CopyRequest):
    """Which set to prove, and how; the settings say on what.

    So many mutants are planted to show that the comparison can fail.
    """

    settings: DrillSettings
    mutants: int = 0


def drill(request: DrillRequest, *, clock: Callable[[], datetime]) -> DrillEvidence:
    """Restore a set into a throw-away server and compare everything.

    What is wrong with the set is a failed check in the evidence, not an error.

    Raises:
        ClientToolError: there is no server of the set's major to drill on.
        DatabaseError: the server itself did not work, or lacks what the set needs.
    """
    started_at = clock()
    run = _Drill(request)
    try:
        with run.copy() as made:
            run.plant_mutants(made)
    except _Ended:
        pass  # a check says why
    except NoProgress as error:
        run.record.checks.append(
            Check(name="time limit", passed=False, detail=error.message)
        )
    return run.record.evidence(
        request.chosen,
        run_id=request.run_id,
        started_at=started_at,
        finished_at=clock(),
    )


class _Ended(Exception):
    """A check did not pass, and there is nothing to go on with."""


class _Drill:
    """The terms of a drill: what is wrong with the set is a check that does not pass.

    The record holds what is known so far.
    """

    _server: DrillServer

    def __init__(self, request: DrillRequest) -> None:
        # All is asked of one store, whose copy of the set is proved.
        first = replace(request.chosen, copies=request.chosen.copies[:1])
        size_bytes = request.manifest.inventory.size_bytes
        self._request = replace(
            request,
            chosen=first,
            limits=replace(request.limits, room_bytes=size_bytes),
            loading=request.settings.loading,
            compares_early=True,
            offline=True,
        )
        self._bound = Bound(request.limits.seconds)
        self.record = DrillRecord()

    @contextmanager
    def copy(self) -> Iterator[Restored]:
        """Yield the restored copy, all of it compared.

        Raises:
            _Ended: it is not equal, or could not be made.
        """
        with restored(self._request, self, self._bound) as made:
            self.record.checks += made.checks
            if any(check.failed for check in self.record.checks):
                raise _Ended
            yield made

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a phase; where the set is to blame for an error, note it."""
        try:
            with self.record.phase(name):
                yield
        except IntegrityError as error:
            if name != "fetch":
                raise
            self._end("stored objects", str(error), error)
        except (ServerFault, NoProgress):
            raise
        except DatabaseError as error:
            if name not in ("surroundings", "restore") or self._bound.passed():
                raise
            self._end("restore", str(error), error)

    def _end(self, name: str, detail: str, error: Exception) -> NoReturn:
        self.record.checks.append(Check(name=name, passed=False, detail=detail))
        raise _Ended from error

    @contextmanager
    def opening(self) -> Iterator[Callable[[Fetched], Place]]:
        """Start a server beside the reading; yield what waits for it."""
        request, manifest = self._request, self._request.manifest
        with (
            opening_server(
                request.settings,
                request.installations,
                major=manifest.server_major,
                system_identifier=manifest.inventory.system_identifier,
                preload=manifest.inventory.preloaded,
            ) as wait,
            ExitStack() as stack,
        ):

            def open_place(fetched: Fetched) -> Place:
                self.record.checks.append(
                    compare("stored objects", len(manifest.objects), fetched.objects,
                            "size and SHA-256 of each")
                )  # fmt: skip
                with self.phase("server"), bar("starting a server"):
                    self._server = wait()
                self.record.drill_server = self._server.full_description
                name = manifest.inventory.database
                return stack.enter_context(
                    place_beside(self._server, name, run_id=request.run_id)
                )

            yield open_place

    def accept_shortages(self, place: Place, missing: Sequence[Shortage]) -> None:
        """Go on without what is allowed by name.

        Raises:
            DatabaseError: the server lacks something else.
        """
        del place
        require_allowed(self._server.description, missing, self._request.loading.allow)

    def accept_definitions(
        self, place: Place, job: FillJob, failures: Sequence[Failure]
    ) -> Concessions:
        """Return what is done without, as these definitions could not be made.

        What the server refuses of it is no finding about the set, unless the definition
        itself is broken.

        Raises:
            DatabaseError: the server lacks something that is not allowed to be missing.
        """
        allowed = self._request.loading.allow
        refused = [each for each in failures if each.name not in allowed]
        if broken := [each for each in refused if not each.is_shortage]:
            self._note_refused(broken)
            raise _Ended
        if refused:
            raise lacking(
                self._server.description, [each.as_shortage() for each in refused]
            )
        concessions = with_shortages(job, [each.as_shortage() for each in failures])
        self.record.checks += [
            not_checked(check, reason)
            for check, reason in (
                *concessions.unmade(job.entries),
                *unmade_anyway(place, job.manifest),
            )
        ]
        return concessions

    def accept_rows(self, copy: RestoredCopy, filled: Filled) -> None:
        """Note what could not be made after the rows.

        Raises:
            _Ended: not all of it is allowed to be missing.
        """
        allowed = self._request.loading.allow
        refused = [
            each
            for each in filled.failures
            if not each.is_outside and each.name not in allowed
        ]
        self._note_refused(refused, filled.words)
        if refused:
            raise _Ended
        self.record.is_restored = True
        self.record.checks += [not_checked(e.name, e.reason) for e in filled.failures]
        self.record.tables = len(copy.tables)
        self.record.rows = sum(table.rows for table in copy.tables)

    def _note_refused(self, refused: Sequence[Failure], words: str = "") -> None:
        """Add the check that names the entries that could not be made."""
        self.record.checks.append(
            compare(
                "restore",
                "no error",
                f"{count(len(refused), 'entry', 'entries')} could not be made"
                if refused
                else "no error",
                "; ".join(each.error for each in refused) or words,
            )
        )

    def compare_more(self, restored: Restored) -> list[Check]:
        """Compare definitions and roles, and ask the user's own queries."""
        request, source = self._request, restored.copy.manifest.source
        queries = [e for e in request.settings.queries if e.database in ("", source)]
        return [
            *comparison.compare_definitions(restored, request.installations),
            comparison.compare_roles(
                restored.place, restored.copy, restored.concessions
            ),
            *comparison.run_queries(restored.copy, queries),
        ]

    def plant_mutants(self, made: Restored) -> None:
        """Damage the copy, to show that the comparison can fail."""
        request = self._request
        if not request.mutants:
            self.record.leave_out_mutants()
            return
        with (
            self.phase("mutants"),
            bar("trying mutants", request.mutants, unit="mutants"),
        ):
            self.record.mutants = plant(
                made.copy, number=request.mutants, seed=request.run_id
            )
            self.record.checks.append(self.record.mutants.check())


def require_allowed(
    server: str, missing: Sequence[Shortage], allowed: Sequence[str]
) -> None:
    """Go on without what is allowed by name.

    Raises:
        DatabaseError: the server lacks something else.
    """
    refused = [
        each
        for each in missing
        if each.name not in allowed or each.what in NEVER_DONE_WITHOUT
    ]
    if refused:
        raise lacking(server, refused)
    for each in missing:
        logger().warning("drilling without", missing=each.name, allowed_in="[drill]")


def lacking(server: str, refused: Sequence[Shortage]) -> DatabaseError:
    """Return the error that names all that a server lacks, and what to do."""
    names = ", ".join(json.dumps(each.name, ensure_ascii=False) for each in refused)
    container = any(each.what.startswith("extension") for each in refused)
    return DatabaseError(
        f"{server} lacks what the set needs",
        said="; ".join(each.detail for each in refused),
        hint=f"{refused[0].hint} {_CONTAINER_HINT if container else ''}"
        "To drill without, with evidence that says what was not checked, set "
        f"allow = [{names}] in [drill].",
        details={
            "missing": [
                {"name": each.name, "detail": each.detail, "hint": each.hint}
                for each in refused
            ]
        },
    )


def unmade_anyway(place: Place, manifest: DatabaseManifest) -> list[tuple[str, str]]:
    """Return what is not checked whatever is allowed, and why."""
    unmade = [
        (loss, "the role that took the backup may not read them, so it has none")
        for loss in manifest.inventory.not_dumped
    ]
    unmade += [(each.name, each.reason) for each in manifest.inventory.beyond_dumps]
    unmade += [
        (
            f"owner of the extension {each.name} and of what is in it",
            f"it is {each.owner}'s, and becomes that of the role that restores it",
        )
        for each in manifest.inventory.extensions
        if each.owner not in (None, manifest.inventory.first_role)
    ]
    if not place.is_throwaway:
        unmade.append(
            ("passwords of roles", "their hashes differ from server to server")
        )
    return unmade
