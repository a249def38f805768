"""The tasks: parse, call, print; one file an area."""

from __future__ import annotations

from invoke.collection import Collection

from opskit.tasks import (
    backup,
    doctor,
    drill,
    fleet,
    github,
    init,
    release,
    restore,
    runbook,
    sets,
    smoke,
    watch,
)

namespace = Collection()
for _task in (
    drill.quickstart,
    init.init,
    doctor.doctor,
    backup.backup,
    sets.backups,
    sets.verify,
    sets.prune,
    sets.pin,
    drill.restore_drill,
    restore.restore,
    sets.copy,
    release.migrate,
    release.rehearse,
    release.release,
    release.rollback,
    release.start,
    release.releases,
    release.evidence,
    smoke.smoke,
    runbook.runbook,
    doctor.status,
    doctor.ledger,
    watch.scheduler,
    watch.rules,
    watch.report,
    fleet.fleet_init,
    fleet.fleet_worker,
    fleet.fleet_run,
    fleet.fleet_status,
    fleet.fleet_manifests,
    github.github,
):
    namespace.add_task(_task)

__all__ = ["namespace"]
