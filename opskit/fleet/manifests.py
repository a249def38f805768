"""Manifests: workers as objects of Kubernetes, and databases as a matrix of GitHub."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from string import Template
from textwrap import indent

from pydantic import BaseModel

from opskit.config import FolderSettings, Settings
from opskit.config.cron import next_due
from opskit.errors import UsageError
from opskit.operations.discovery import find, with_found

_MATRIX_MAX = 256  # GitHub's limit
_NAME_LENGTH_MAX = 52  # of a CronJob
_GRACE_SECONDS = 60
# A round of a worker's work waits for stores that do not answer, and then a sixth of
# the time after which it counts as dead.
_ALIVE_MINUTES, _ROUND = 10, 6 * timedelta(minutes=1)
_DEPTHS = {"deployment": 6, "cronjob": 10}  # of the pod in them
# The ledger of a night goes on with that of the night before.
_LEDGER = """
      - name: INDEX
        valueFrom:
          fieldRef:
            fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']
      - {{name: OPSKIT_LEDGER_NAME, value: "burst-{}-$(INDEX)"}}"""
_CLAIM = "opskit-{}"
_CONFIGURATION, _SECRETS = Path("/etc/opskit"), Path("/run/secrets/opskit")
# A worker that finds nothing to do ends: until then all that is due is in the queue.
_TICK = timedelta(minutes=2)
_ANY_DAY = datetime(2024, 1, 1, tzinfo=UTC)


def github_matrix(settings: Settings, *, label: str = "") -> str:
    """Return the databases, of a label or all, as `fromJSON` in a workflow reads them.

    Raises:
        UsageError: there are none, or more than GitHub takes.
        OpskitError: a rule does not say which there are.
    """
    found = find(settings, labels=[label] if label else None)
    for fault in found.faults.values():
        raise fault
    databases = with_found(settings, found).databases.items()
    names = sorted(name for name, each in databases if label in ("", each.label))
    if not 0 < len(names) <= _MATRIX_MAX:
        raise UsageError(
            f"{len(names)} databases make no matrix: GitHub takes 1 to {_MATRIX_MAX}",
            hint="Give the databases labels, and each label a workflow of its own: "
            "`inv fleet-manifests --github-matrix --label NAME`.",
        )
    return json.dumps({"source": names})


def kubernetes(settings: Settings, *, image: str) -> str:
    """Return workers for each label, and more of them for its busy hours, as YAML.

    Raises:
        UsageError: the configuration names a file that no worker would have.
    """
    lines: dict[str, list[str]] = defaultdict(list)
    lines["default"] = []  # its workers do what is about all sources
    for section in (settings.databases, settings.discover, settings.files):
        for source in section.values():
            lines[source.label].append(source.schedule)
    zone = settings.scheduler.zone
    text = _head(settings)
    for label, schedules in sorted(lines.items()):
        pod = _pod(settings, label) | {"image": json.dumps(image)}
        text += _filled("deployment", f"opskit-{label}", pod)
        if backups := Counter(each for each in schedules if each).most_common(1):
            due = next_due(backups[0][0], zone, after=_ANY_DAY) + _TICK
            due = due.astimezone(zone)
            pod |= {"flags": ", --until-idle", "ledger": _LEDGER.format(label)}
            pod |= {"time": f"{due.minute} {due.hour}", "zone": zone.key}
            text += _filled("cronjob", f"opskit-burst-{label}", pod)
    return text


def _head(settings: Settings) -> str:
    """Return which files the workers need, as comments."""
    needed = {_CONFIGURATION: ["opskit.toml"], _SECRETS: []}
    for key, file in _files(settings, ""):
        path = _CONFIGURATION / file
        if path.parent not in needed:
            raise UsageError(
                f"{key} is {path}, which no worker in Kubernetes has",
                hint="Add the file to the Secret opskit, and have the configuration "
                f"name {_SECRETS / path.name}.",
            )
        needed[path.parent].append(path.name)
    configuration, secrets = (
        " ".join(f"--from-file={name}" for name in dict.fromkeys(names))
        for names in needed.values()
    )
    lines = [
        "Workers of a fleet; docs/fleet.md of opskit describes them. Make first:",
        f"kubectl create configmap opskit {configuration}",
        f"kubectl create secret generic opskit {secrets}".rstrip(),
        "If they are needed, add --from-file=pgpass and --from-file=aws-credentials.",
    ]
    if claims := [_CLAIM.format(each) for each in _folders(settings, settings.files)]:
        lines.append(
            "The pods of all nodes mount these PersistentVolumeClaims (ReadWriteMany): "
            + ", ".join(claims)
        )
    return "".join(f"# {each}\n" for each in lines)


def _files(value: object, key: str) -> Iterator[tuple[str, Path]]:
    """Yield the keys that name a file which has to be there, and the file."""
    if isinstance(value, Path) and value.name and re.search(r"[._]file$", key):
        yield key, value
    elif isinstance(value, list):
        yield from _files(dict(enumerate(value)), key)
    elif isinstance(value, BaseModel | Mapping):
        for name, each in value.items() if isinstance(value, Mapping) else value:
            yield from _files(each, f"{key}.{name}".lstrip("."))


def _pod(settings: Settings, label: str) -> dict[str, str]:
    """Return the values in the template of a pod; each folder of a host is a claim."""
    files = {name: e for name, e in settings.files.items() if e.label == label}
    folders = _folders(settings, files)
    claim = "  - {{name: {}, persistentVolumeClaim: {{claimName: {}}}}}\n"
    mount = "      - {{name: {}, mountPath: {}}}\n"
    drain = settings.scheduler.job_timeout + settings.scheduler.stop_timeout
    return {
        "label": label,
        "alive_minutes": str(_ALIVE_MINUTES + settings.fleet.dead_after // _ROUND),
        "grace_seconds": str(int(drain.total_seconds()) + _GRACE_SECONDS),
        "mounts": "".join(mount.format(n, json.dumps(p)) for n, p in folders.items()),
        "claims": "".join(
            claim.format(name, json.dumps(_CLAIM.format(name))) for name in folders
        ),
    }


def _folders(settings: Settings, files: Mapping[str, FolderSettings]) -> dict[str, str]:
    """Return the folders of a host that are stores or sources, by a volume's name."""
    stores = {name: each for name, each in settings.stores.items() if not each.on_s3}
    folders = {_name(f"store-{name}"): each.place[0] for name, each in stores.items()}
    return folders | {
        _name(f"files-{name}"): str(each.path) for name, each in files.items()
    }


def _name(text: str) -> str:
    """Return a text as a name in Kubernetes, which has no _ and no - at its end."""
    plain = re.sub(r"[^a-z0-9]+", "-", text).strip("-")
    if plain == text and len(text) <= _NAME_LENGTH_MAX:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{plain[: _NAME_LENGTH_MAX - 7].rstrip('-')}-{digest}"


def _filled(kind: str, name: str, values: Mapping[str, str]) -> str:
    """Return the template of a kind of object with that of its pod in it."""
    folder = resources.files("opskit.fleet") / "kubernetes"
    filled = {"flags": "", "ledger": "", **values, "name": _name(name)}
    for each, depth in (("pod", _DEPTHS[kind]), (kind, 0)):
        text = Template((folder / f"{each}.yml").read_text(encoding="utf-8"))
        filled["pod"] = indent(text.substitute(filled), " " * depth)
    return re.sub(r"\n{2,}", "\n", filled["pod"])
