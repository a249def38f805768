"""`quickstart`: from nothing to a proved backup."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say


@command(help={"json": "print one JSON document"})
def quickstart(_context: object, json: bool = False) -> Any:
    """Boot an embedded PostgreSQL, back it up, and prove the backup by a drill.

    Example: inv quickstart
    """
    from opskit import config, files
    from opskit import quickstart as sample
    from opskit.errors import UsageError
    from opskit.operations import drill as drilling
    from opskit.operations import run as runtime
    from opskit.operations.backup import back_up_source
    from opskit.postgres.servers.programs import installations
    from opskit.tasks import backup, drill

    folder = _folder()
    try:
        files.make_directories(folder)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror}",
            hint="Run this in a folder that you may write to.",
        ) from error
    installation = sample.choose(installations())
    say(f"starting PostgreSQL {installation.version}", as_json=json)
    with sample.sample_server(installation) as running:
        path = sample.write_configuration(folder, sample.load_sample(running))
        run = runtime.begin(config.load(path))
        done = back_up_source(run, sample.SOURCE)
        if done.result is None:
            return done
        for line in backup.summary(done):
            say(line, as_json=json)
        chosen = run.catalog(sample.SOURCE).find(done.result.manifest.backup_id)
        evidence, report, unstored = drilling.run_drill(
            run, chosen, mutants=run.settings.drill.mutants
        )
    document = drill.describe(evidence, report)
    for line in drill.summary(evidence, report, chosen.manifest.kind):
        say(line, as_json=json)
    if not evidence.passed:
        raise drill.failure(evidence, document)
    if unstored is not None:
        raise drill.not_recorded(unstored, document)
    _tell_next(path, document, as_json=json)
    return {
        "status": "ok",
        "backup": done.result.as_json(),
        "drill": document,
        "config": str(path),
    }


def _folder() -> Path:
    """Return where the sample is kept: here, or where this user may write."""
    here = Path.cwd()
    if not os.access(here, os.W_OK | os.X_OK):
        with suppress(RuntimeError):  # this user has no home
            here = Path.home()
    return here / ".opskit" / "quickstart"


def _tell_next(path: object, document: Document, *, as_json: bool) -> None:
    say("", as_json=as_json)
    say(
        f"proved: every row came back; a restore takes "
        f"{text.duration(document['rto_seconds'])}",
        as_json=as_json,
    )
    say(f"look at the sets: `inv --config {path} backups`", as_json=as_json)
