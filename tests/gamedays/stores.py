"""Stores: objects are damaged, a server no longer answers, a disk is full."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests import s3_servers
from tests.gamedays.guarded import Guarded, make_keys, protect
from tests.gamedays.scenario import Alert
from tests.gamedays.system import System
from tests.s3_servers import BUCKET, S3Server
from tests.support import execute

_PRUNE, _COPY = 3, 5  # steps of the runbook that not everybody needs
_DISK_MIB = 16


class Damaged(Guarded):
    """A bit of the newest dump flips in one store, and another object is lost."""

    runbook = "store-failing"
    broken = "in a store a bit of the newest dump flipped, and another object was lost"
    sign = Alert("OpskitRunFailed")
    skip = (_PRUNE,)

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Give the system a second store."""
        second = system.folder / "second"
        second.mkdir()
        protect(
            system,
            make_keys(system.folder / "keys"),
            f"[stores.second]\nurl = {json.dumps(second.as_uri())}\n",
        )

    def break_(self, system: System) -> None:
        """Damage the store, and read all sets as is done every week."""
        dump, private = (
            newest(system.folder / "store", name)
            for name in ("dump.pgdump.zst.age", "private.json.age")
        )
        content = bytearray(dump.read_bytes())
        content[len(content) // 2] ^= 1
        dump.write_bytes(content)
        private.unlink()
        system.run("verify", codes=(20,))

    def inputs(self, _system: System) -> Mapping[str, str]:
        """Return which store it is, and which one is whole."""
        return {"store": "local", "from": "second"}


def newest(store: Path, name: str) -> Path:
    """Return an object of the newest set in a folder."""
    return max(store.glob(f"service/*/*/{name}"))


class Silent(Guarded):
    """The server of a store accepts connections and answers none."""

    runbook = "store-failing"
    broken = "the server of a bucket no longer answered, during a backup too"
    sign = Alert("OpskitStoreUnreachable")
    skip = (_PRUNE,)
    server: S3Server

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Give the system a bucket as its second store."""
        folder = system.folder / "seaweedfs"
        folder.mkdir()
        self.server = stack.enter_context(s3_servers.with_buckets("seaweedfs", folder))
        system.variables |= s3_servers.environment()
        protect(
            system,
            make_keys(system.folder / "keys"),
            bucket(self.server, BUCKET, more='timeout = "5s"\nattempts = 1\n'),
        )

    def break_(self, _system: System) -> None:
        """Stop the server as a machine does that hangs."""
        os.kill(self.server.pid, signal.SIGSTOP)

    def by_hand(self, system: System) -> None:
        """Have a backup run into it, then have the server go on."""
        system.run("backup", codes=(10,))
        os.kill(self.server.pid, signal.SIGCONT)

    def inputs(self, _system: System) -> Mapping[str, str]:
        """Return which store it is, and which one is whole."""
        return {"store": "offsite", "from": "local"}


def bucket(
    server: S3Server, name: str, prefix: str = "service", *, more: str = ""
) -> str:
    """Return the section of a bucket as the store `offsite`."""
    return (
        f'[stores.offsite]\nurl = "s3://{name}/{prefix}"\n'
        f'endpoint_url = "{server.endpoint_url}"\nregion = "us-east-1"\n{more}'
    )


class DiskFull(Guarded):
    """Sets that nobody prunes fill the disk of the only store."""

    runbook = "store-failing"
    broken = "sets that were not pruned filled the disk, until a backup failed"
    sign = Alert("OpskitDiskFilling")
    skip = (_COPY,)

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Mount a small disk as the store, of which others use a half."""
        assert os.geteuid() == 0, "only root may mount a disk"
        disk = system.folder / "store"
        options = f"size={_DISK_MIB}m,mode=0700"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", disk], check=True
        )
        unmount = ["umount", "--lazy", str(disk)]
        stack.callback(lambda: subprocess.run(unmount, check=True))
        (disk / "other.log").write_bytes(bytes((_DISK_MIB - 7) * 1024**2))
        execute(
            system.site.url,
            "UPDATE public.tasks SET details = (SELECT string_agg(md5(random()::text "
            "|| n), '') FROM generate_series(1, 120) n "
            "WHERE tasks.id IS NOT NULL)",
        )
        protect(
            system, make_keys(system.folder / "keys"), "[retention]\nkeep_last = 2\n"
        )

    def break_(self, system: System) -> None:
        """Back up until the disk is full."""
        for _ in itertools.repeat(None, 20):
            if "error" in system.document("backup", codes=(0, 10)):
                return
        raise AssertionError("the disk is not full")

    def inputs(self, _system: System) -> Mapping[str, str]:
        """Return which store it is."""
        return {"store": "local", "from": "local"}
