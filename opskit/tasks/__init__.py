"""The tasks: parse, call, print; one file an area."""

from __future__ import annotations

from invoke.collection import Collection

from opskit.tasks import (
    backup,
    catalog,
    copying,
    development,
    doctor,
    drill,
    pinning,
    quickstart,
    records,
    restore,
    retention,
)

namespace = Collection()
for _task in (
    quickstart.quickstart,
    doctor.doctor,
    backup.backup,
    catalog.backups,
    catalog.verify,
    retention.prune,
    pinning.pin,
    drill.restore_drill,
    restore.restore,
    copying.copy,
    records.ledger,
    development.test,
    development.bench,
):
    namespace.add_task(_task)

__all__ = ["namespace"]
