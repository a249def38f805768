"""The tasks: parse, call, print; one file an area."""

from __future__ import annotations

from invoke.collection import Collection

from opskit.tasks import (
    backup,
    backups,
    copy,
    doctor,
    drill,
    ledger,
    pin,
    prune,
    quickstart,
    restore,
    verify,
)

namespace = Collection()
for _task in (
    quickstart.quickstart,
    doctor.doctor,
    backup.backup,
    backups.backups,
    verify.verify,
    prune.prune,
    pin.pin,
    drill.restore_drill,
    restore.restore,
    copy.copy,
    ledger.ledger,
):
    namespace.add_task(_task)

__all__ = ["namespace"]
