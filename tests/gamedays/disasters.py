"""Disasters: somebody destroys whatever can be reached, or one store is all there is."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions

from opskit.postgres import database
from opskit.postgres.connect import connect
from opskit.postgres.servers.throwaway import SUPERUSER
from tests import s3_servers
from tests.gamedays.guarded import Guarded, Keys, make_keys, protect
from tests.gamedays.scenario import Alert
from tests.gamedays.stores import bucket
from tests.gamedays.system import DATABASE, System
from tests.releases.campaign import listening
from tests.s3_servers import BUCKET, LOCKED_BUCKET, S3Server
from tests.support import execute
from tests.watching import Scheduler

_LOCKED = "object_lock_days = 1\n"
# Steps that not everybody needs: of ransomware, and of everything-lost.
_LEDGER, _VERSIONS, _PLAN, _RESTORE, _COPY = 5, 6, 8, 9, 10
_FILES = 6
_DEMAND = """
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
CREATE TABLE public.read_me AS SELECT 'pay'::text AS what_to_do;
"""


class _Elsewhere(Guarded):
    """A scenario after which the service and opskit run on another machine.

    What is not lost: a bucket, the code and the key of the service, and the safe.
    """

    keys: Keys
    server: S3Server
    stack: ExitStack
    clean: Path

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Give the system a bucket as its second store."""
        self.stack = stack
        self.clean = _beside(system, "clean")
        shutil.copytree(
            system.folder,
            self.clean,
            symlinks=True,
            ignore=shutil.ignore_patterns(".opskit", "store", "processes"),
            dirs_exist_ok=True,
        )
        for name in ("processes", "store"):
            (self.clean / name).mkdir()
        self.keys = make_keys(_beside(system, "safe") / "keys")
        self.server = stack.enter_context(
            s3_servers.with_buckets("seaweedfs", _beside(system, "seaweedfs"))
        )
        system.variables |= s3_servers.environment() | {
            # Where rclone is among the tools of the tests.
            "PATH": f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}"
        }

    def follow(self, system: System) -> None:
        """Start the service and the scheduler when the runbook is done."""
        super().follow(system)
        system.site.serve()
        system.site.await_answer()
        system.scheduler = Scheduler(system.folder, self.stack, system.environment)


def _beside(system: System, name: str) -> Path:
    """Make a folder that is no part of the machine."""
    folder = system.folder.with_name(f"{system.folder.name}-{name}")
    folder.mkdir()
    return folder


class Ransomware(_Elsewhere):
    """Somebody has every right on the machine, in the database, and in the bucket."""

    runbook = "ransomware"
    broken = (
        "the database, the state folder and a store were overwritten, and every object "
        "of a bucket with object lock was deleted or overwritten"
    )
    sign = Alert("OpskitLedgerBroken")
    destroys = (DATABASE,)
    skip = (_LEDGER,)
    before = ""

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Use the bucket with object lock."""
        super().prepare(system, stack)
        protect(system, self.keys, bucket(self.server, LOCKED_BUCKET, more=_LOCKED))

    def break_(self, system: System) -> None:
        """Destroy all of it."""
        _next_second()
        self.before = datetime.now(UTC).isoformat(timespec="seconds")
        _next_second()
        execute(system.site.url, _DEMAND)
        for folder in (system.folder / "store", system.folder / ".opskit"):
            for path in (each for each in folder.rglob("*") if each.is_file()):
                path.write_bytes(secrets.token_bytes(2000))
        refused = _destroy(self.server)
        assert refused, "nothing in the bucket was locked"

    def by_hand(self, system: System) -> None:
        """Cut the machine off, and configure a clean one with a new prefix."""
        system.scheduler.kill()
        system.site.stop()
        system.site.folder = self.clean
        new = bucket(self.server, LOCKED_BUCKET, "clean", more=_LOCKED)
        system.configure(self.keys.sections + new)

    def inputs(self, _system: System) -> Mapping[str, str]:
        """Return what is known, and where it is to be."""
        return {
            "database": DATABASE,
            "before": self.before,
            "target": DATABASE,
            "evidence": str(self.clean / "evidence"),
            "bucket": f"{LOCKED_BUCKET}/service",
            "endpoint": self.server.endpoint_url,
            "folder": str(self.clean / "store"),
        }


class LedgerOverwritten(Guarded):
    """The file of the ledger, and nothing else, holds other bytes."""

    runbook = "ransomware"
    broken = "the ledger was overwritten, and a backup was recorded in what was left"
    sign = Alert("OpskitLedgerBroken")
    skip = (_VERSIONS, _PLAN, _RESTORE, _COPY)

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Protect the sets."""
        protect(system, make_keys(system.folder / "keys"))

    def break_(self, system: System) -> None:
        """Overwrite it before the next backup."""
        path = system.folder / ".opskit" / "ledger.jsonl"
        path.write_bytes(secrets.token_bytes(path.stat().st_size))
        system.run("backup")

    def inputs(self, system: System) -> Mapping[str, str]:
        """Return where the file is to be kept; no data was lost."""
        return {
            "database": DATABASE,
            "before": datetime.now(UTC).isoformat(timespec="seconds"),
            "target": DATABASE,
            "evidence": str(system.folder / "evidence"),
        }


def _next_second() -> None:
    """Let a second pass: buckets tell times of no more precision."""
    time.sleep(1.1)


def _destroy(server: S3Server) -> list[str]:
    """Delete and overwrite every object; return which versions could not be deleted."""
    with _client(server) as client:
        listed = client.list_object_versions(Bucket=LOCKED_BUCKET)["Versions"]
        refused = [*_refused(client, listed)]
        for number, key in enumerate(sorted({each["Key"] for each in listed})):
            if number % 2:
                client.delete_object(Bucket=LOCKED_BUCKET, Key=key)
            else:
                client.put_object(Bucket=LOCKED_BUCKET, Key=key, Body=b"pay")
    return refused


def _refused(client: Any, versions: list[dict[str, Any]]) -> Iterator[str]:
    for each in versions:
        try:
            client.delete_object(
                Bucket=LOCKED_BUCKET, Key=each["Key"], VersionId=each["VersionId"]
            )
        except botocore.exceptions.ClientError:
            yield each["Key"]


def _client(server: S3Server) -> Any:
    return contextlib.closing(
        boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=s3_servers.ACCESS_KEY,
            aws_secret_access_key=s3_servers.SECRET_KEY,
        )
    )


class EverythingLost(_Elsewhere):
    """The machine and the database server are gone at once."""

    runbook = "everything-lost"
    broken = "the machine and its database were lost; a bucket and the safe were left"
    sign = Alert("OpskitAbsent")
    skip = (_FILES,)

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Use a plain bucket."""
        super().prepare(system, stack)
        protect(system, self.keys, bucket(self.server, BUCKET))

    def faults(self, system: System) -> list[str]:
        """Return also that there is no machine."""
        there = (system.folder / "opskit.toml").exists()
        return super().faults(system) if there else ["the machine is gone"]

    def break_(self, system: System) -> None:
        """End what runs there, drop the database, and remove every file."""
        system.site.stop()
        server = system.site.url.replace(f"/{DATABASE}", "/postgres")
        with connect(server, purpose="test") as connection:
            database.drop(connection, DATABASE)
        for path in system.folder.iterdir():
            if path.name in ("prometheus", "processes"):
                continue  # of other machines: who watches, and this test
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        system.scheduler.kill()

    def by_hand(self, system: System) -> None:
        """Get a machine, a server, and a configuration with what is in the safe."""
        _server, port = self.stack.enter_context(listening())
        site = system.site
        site.folder, site.server_port = self.clean, port
        site.url = f"postgresql://{SUPERUSER}@127.0.0.1:{port}/{DATABASE}"
        keys = self.keys.sections.replace(
            json.dumps(str(self.keys.identity)), json.dumps(str(self.keys.rescue))
        )
        system.configure(keys + bucket(self.server, BUCKET))

    def inputs(self, system: System) -> Mapping[str, str]:
        """Return which source it was, and where it is to be."""
        return {"database": DATABASE, "target": system.site.url}
