"""Real S3 servers on the loopback, each a process that ends with its `with` block."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from opskit.config import StoreSettings
from opskit.store.s3.client import make_client
from tests.ports import free_port
from tests.support import bound

ACCESS_KEY, SECRET_KEY = "opskit-test", "opskit-test-secret"
# An identity of SeaweedFS that may read, write and list, but not delete.
WRITER_KEY, WRITER_SECRET = "opskit-writer", "opskit-writer-secret"
BUCKET, LOCKED_BUCKET = "plain", "locked"
_BINARIES = Path(sys.executable).parent
_START_SECONDS = 60.0
_GRPC_OFFSET = 10_000
# By itself it looks whether a key is taken, and stores the object a moment later.
_MOTO = """
import threading
from moto.s3.responses import S3Response
from moto.server import main

put, one_at_a_time = S3Response.put_object, threading.Lock()

def put_object(self):
    with one_at_a_time:
        return put(self)

S3Response.put_object = put_object
main()
"""


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A running server."""

    kind: str
    endpoint_url: str
    pid: int

    def settings(
        self, bucket: str, prefix: str = "", **changes: object
    ) -> StoreSettings:
        """Return the settings of a store on this server."""
        return StoreSettings.model_validate(
            {
                "url": f"s3://{bucket}/{prefix}",
                "endpoint_url": self.endpoint_url,
                "region": "us-east-1",
                "addressing": "path",
                **changes,
            }
        )


def environment(key: str = ACCESS_KEY, secret: str = SECRET_KEY) -> dict[str, str]:
    """Return the variables that give boto3 these credentials and no others."""
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextlib.contextmanager
def seaweedfs(folder: Path, host: str = "127.0.0.1") -> Iterator[S3Server]:
    """Run SeaweedFS: object lock, conditional writes, identities with rights."""
    config = folder / "identities.json"
    config.write_text(json.dumps(_identities()))
    data = folder / "data"
    data.mkdir()
    names = (
        "master.port", "master.port.grpc", "filer.port", "filer.port.grpc",
        "s3.port", "s3.port.grpc",
    )  # fmt: skip
    ports = {each: free_port() for each in names}
    ports["volume.port"] = free_port(companion=_GRPC_OFFSET)
    command = [
        str(_BINARIES / "weed"),
        "-logtostderr=true",
        "server",
        "-s3",
        f"-dir={data}",
        f"-ip={host}",
        f"-ip.bind={host}",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        "-volume.preStopSeconds=0",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=100",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    url = f"http://{host}:{ports['s3.port']}"
    with _running("seaweedfs", command, folder, url) as server:
        yield server


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[S3Server]:
    """Run moto's server: versions, object lock, conditional writes; any secret fits."""
    port = free_port()
    command = [sys.executable, "-c", _MOTO, "-H", "127.0.0.1", "-p", str(port)]
    with _running("moto", command, folder, f"http://127.0.0.1:{port}") as server:
        yield server


@contextlib.contextmanager
def rclone(folder: Path) -> Iterator[S3Server]:
    """Run `rclone serve s3` over a folder: signatures, but no conditions nor locks."""
    port = free_port()
    data = folder / "data"
    data.mkdir()
    command = [
        str(_BINARIES / "rclone"), "serve", "s3", str(data),
        "--config", os.devnull,
        "--addr", f"127.0.0.1:{port}",
        "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}",
        "--vfs-cache-mode", "off",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with _running("rclone", command, folder, url) as server:
        yield server


@contextlib.contextmanager
def with_buckets(kind: str, folder: Path, **options: str) -> Iterator[S3Server]:
    """Run a server that has `BUCKET` and, where it can, `LOCKED_BUCKET`."""
    run = {"seaweedfs": seaweedfs, "moto": moto, "rclone": rclone}[kind]
    with run(folder, **options) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        client = make_client(server.settings(BUCKET))
        client.create_bucket(Bucket=BUCKET)
        if kind != "rclone":
            client.create_bucket(Bucket=LOCKED_BUCKET, ObjectLockEnabledForBucket=True)
        client.close()
        patch.undo()
        yield server


def _identities() -> dict[str, object]:
    may_not_delete = [
        {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::*"},
        {"Effect": "Deny", "Action": "s3:Delete*", "Resource": "arn:aws:s3:::*"},
    ]
    policy = {"Version": "2012-10-17", "Statement": may_not_delete}
    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    return {
        "identities": [
            {
                "name": "admin",
                "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": everything,
            },
            {
                "name": "writer",
                "credentials": [{"accessKey": WRITER_KEY, "secretKey": WRITER_SECRET}],
                "policyNames": ["may-not-delete"],
            },
        ],
        "policies": [{"name": "may-not-delete", "content": json.dumps(policy)}],
    }


@contextlib.contextmanager
def _running(
    kind: str, command: Sequence[str], folder: Path, url: str
) -> Iterator[S3Server]:
    log = folder / f"{kind}.log"
    plain = _plain_environment(folder)
    with bound(command, log=log, cwd=folder, env=plain) as process:
        _wait_until_it_answers(process, url, log)
        yield S3Server(kind=kind, endpoint_url=url, pid=process.pid)


def _plain_environment(folder: Path) -> Mapping[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RCLONE_"))
    }
    return {**kept, "HOME": str(folder)}


def _wait_until_it_answers(
    process: subprocess.Popen[bytes], url: str, log: Path
) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except urllib.error.HTTPError as error:
                error.close()  # a refusal is an answer
            return
        time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer: {log.read_text()[-4000:]}")
