"""Examines everything that a backup and a drill will need."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from opskit.checks import Check, Health, attempt, count, worst
from opskit.config import configuration_path
from opskit.doctor import databases, stores, workflows
from opskit.doctor.databases import ExaminedDatabase, Trial
from opskit.errors import Degraded, StoreError, Unhealthy
from opskit.operations import discovery, keys, sources
from opskit.operations.outcome import Outcome, Record
from opskit.operations.run import Run
from opskit.store import LocalStore, unwrapped


@dataclass(frozen=True, kw_only=True)
class Examined:
    """Everything that was examined."""

    checks: tuple[Check, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {"checks": [each.as_health_json() for each in self.checks]}


def doctor(
    run: Run,
    *,
    also: Iterable[Check] = (),
    on_check: Callable[[Check], None] = lambda _check: None,
) -> Outcome[Examined]:
    """Examine what the settings name, and `also` what the caller does.

    `on_check` gets each check at once.
    """
    with run.recorded("doctor") as record:
        checks = []
        for each in chain(_examine(run), also):
            checks.append(each)
            on_check(each)
        judge(record, checks)
    return record.outcome


def judge(record: Record, checks: Sequence[Check]) -> None:
    """Make checks the result of an operation, and their worst health its status.

    Raises:
        Degraded, Unhealthy: not all of them passed.
    """
    status = worst(checks)
    record.status = status.value
    record.result = Examined(checks=tuple(checks))
    bad = [each for each in checks if not each.passed]
    if bad:
        bad.sort(key=lambda each: each.status is not status)
        kind = Unhealthy if status is Health.UNHEALTHY else Degraded
        raise kind(
            f"{len(bad)} of {count(len(checks), 'check')} did not pass: {bad[0].name}",
            hint="Do what each line says, then run this again.",
        )


def _examine(run: Run) -> Iterator[Check]:
    drill = run.settings.drill
    yield stores.examine_folder(
        "state folder",
        run.state_dir,
        "Let this user write there, or name another with state_dir.",
    )
    examined = [
        databases.examine(name, run.database(name).resolve_url(), run.installations)
        for name in run.settings.databases
    ]
    for each in examined:
        databases.examine_restore(each, run.database(each.name).resolve_restore_url())
        yield from each.checks
    yield from discovery.examine(run.settings)
    for name, each_folder in run.settings.files.items():
        yield from stores.examine_files(
            name, each_folder.path, sources.service_lock(each_folder)
        )
    yield from _keys(run)
    for store in run.stores:
        yield from stores.examine(store, now=run.now)
    yield from _room(run, examined)
    yield from stores.examine_retention(run.settings.stores, run.settings.retention)
    rules = [each.retention for each in run.settings.databases.values()]
    rules += [each.retention for each in run.settings.files.values()]
    for own in filter(None, rules):
        yield from stores.examine_retention(run.settings.stores, own)
    sizes = [e.inventory.size_bytes for e in examined if e.inventory]
    yield stores.examine_space(
        "space for drills",
        drill.work_dir or Path(tempfile.gettempdir()),
        2 * max(sizes, default=0),  # the copy and the dump of the largest
        "Free some space, or set work_dir in [drill] to a larger file system.",
    )
    for each in examined:
        if each.inventory is not None:
            trial = Trial(
                url=run.database(each.name).resolve_url(),
                inventory=each.inventory,
                installations=run.installations,
                settings=drill,
                exclude_tables=run.database(each.name).exclude_tables,
                run_id=run.run_id,
            )
            yield from databases.examine_drill(each.name, trial)
    yield from workflows.examine(configuration_path().parent, run.settings)


def _keys(run: Run) -> Iterator[Check]:
    """Yield whether the keys that are configured can be used, and fit each other."""
    settings = run.settings
    recipients = settings.encryption.recipients
    if recipients:
        yield attempt(
            "encryption: recipients",
            lambda: f"sets are encrypted to {len(settings.encryption.recipients)}",
        )
    if settings.encryption.identity_file is not None:
        identity = attempt("encryption: identity", lambda: _opens(run))
        yield identity
        if identity.passed and not _is_recipient(run):
            yield Check(
                name="encryption: identity and recipients",
                passed=False,
                advisory=True,
                observed="the identity belongs to none of the recipients: new sets "
                "cannot be restored or drilled here",
                hint="Add its public key to recipients, or name another identity_file.",
            )
    if settings.signing.key_file is not None or settings.signing.trusted_keys:
        yield attempt("signing: key", lambda: _signs(run))


def _opens(run: Run) -> str:
    own = run.identities
    return f"{own.path} can be read" if own is not None else "none"


def _is_recipient(run: Run) -> bool:
    recipients = set(run.settings.encryption.recipients)
    own = run.identities
    return own is None or not recipients or bool(recipients & set(own.recipients))


def _signs(run: Run) -> str:
    keys.require_own_trust(run.settings)
    own = keys.signer(run.settings)
    return f"sets are signed by {own.fingerprint}" if own is not None else "none"


def _room(run: Run, examined: Sequence[ExaminedDatabase]) -> Iterator[Check]:
    """Yield whether each store in a folder has room for one more set of every source.

    The newest set shows how large the next will be. Of a source without one its
    own size is known, which its compressed set hardly ever has.
    """

    wanted = {
        each.name: each.inventory.size_bytes for each in examined if each.inventory
    }
    for name, each_folder in run.settings.files.items():
        wanted[name] = stores.size_bytes(each_folder.path)
    made: dict[str, int] = {}
    try:
        for each_set in sorted(run.listing().sets, key=lambda each: each.started_at):
            made[each_set.source] = each_set.size_bytes
    except StoreError:
        return  # every store is unhealthy, which was said
    sizes = wanted | {name: size for name, size in made.items() if name in wanted}
    for store in run.stores:
        inner = unwrapped(store)
        if isinstance(inner, LocalStore) and inner.root.is_dir():
            room = stores.examine_space(
                f"store {store.name}: room",
                inner.root,
                sum(sizes.values()),
                "Free some space, keep fewer sets, or use a larger file system.",
            )
            yield replace(room, advisory=bool(wanted.keys() - made.keys()))
