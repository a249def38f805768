"""Whether the workflow on GitHub backs up every database, and who notices if not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from opskit.checks import Check
from opskit.config import Settings

WORKFLOW = Path(".github/workflows/backup.yml")
_COMMENT = re.compile(r"(?m)(^|\s)#.*$")
_MATRIX = re.compile(
    r"""(?mx) ^\ +source:\ * (?:
        \[ (?P<flow> [^\[\]]*) \]                     # source: [shop, crm]
        | (?P<block> (?: \n\ +-\ +["'\w-]+\ *$ )+ )   # - shop, on a line each
    )"""
)
_FROM_CONFIGURATION = "fleet-manifests --github-matrix"
_NAME = re.compile(r"\w[\w-]*")


def examine(folder: Path, settings: Settings) -> Iterator[Check]:
    """Yield what there is to say of the workflow in a repository, if it has one.

    A database with a `schedule` is backed up by the scheduler.
    """
    path = folder / WORKFLOW
    if not path.is_file():
        return
    name = f"workflow {path.name}"
    text = path.read_text(encoding="utf-8", errors="replace")
    text = _COMMENT.sub("", text)
    found = _MATRIX.search(text)
    known = settings.databases
    if _FROM_CONFIGURATION in text:
        listed = [*known]
    elif found is not None:
        listed = _NAME.findall(found["flow"] or found["block"] or "")
    else:
        yield Check(
            name=f"{name}: databases",
            passed=None,
            observed="its list of databases is not understood",
            hint="Write it as `source: [shop, crm]` in the matrix of the job.",
        )
        return
    lacking = [e for e in known if e not in listed and not known[e].schedule]
    unknown = [e for e in listed if e not in known]
    faults = [f"it does not back up {each}" for each in lacking]
    faults += [f"{each} is not configured" for each in unknown]
    yield Check(
        name=f"{name}: databases",
        passed=not faults,
        advisory=True,
        observed="; ".join(faults) or f"it backs up {', '.join(listed) or 'none'}",
        hint="Correct `source` in its matrix." if faults else "",
    )
    is_remote = any(not e.url.startswith("file:") for e in settings.stores.values())
    # Nothing is wrong for certain: a runner of one's own keeps its folders.
    yield Check(
        name=f"{name}: store",
        passed=True,
        observed="a store is not on the machine of the job"
        if is_remote
        else "every store is a folder, and GitHub deletes its machines after each job",
        hint="" if is_remote else "Add a bucket: [stores.offsite].",
    )
    silent = [each for each in listed if each not in settings.notify.heartbeats]
    # Nothing is wrong yet, so this fails nothing.
    yield Check(
        name=f"{name}: heartbeats",
        passed=True,
        observed=f"nobody notices when backups of {', '.join(silent)} stop"
        if silent
        else "each database has one",
        hint="GitHub stops scheduled workflows after 60 days without activity in a "
        "public repository, and when the person who last changed their times leaves. "
        "Add the databases to [notify.heartbeats]; docs/notifications.md describes it."
        if silent
        else "",
    )
