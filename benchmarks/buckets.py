"""A bucket on a real S3 server on the loopback, the one that the tests use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3

from benchmarks.user import S3Place
from tests import s3_servers


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """An empty bucket."""

    place: S3Place
    pid: int

    def empty(self) -> None:
        """Delete every object in it."""
        with contextlib.closing(self.client()) as client:
            pages = client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.place.bucket):
                for each in page.get("Contents", []):
                    client.delete_object(Bucket=self.place.bucket, Key=each["Key"])

    def client(self) -> boto3.client:
        """Return boto3's client; the caller closes it."""
        environment = self.place.environment
        return boto3.client(
            "s3",
            endpoint_url=self.place.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[Bucket]:
    """Run SeaweedFS with an empty bucket."""
    folder.mkdir()
    with s3_servers.with_buckets("seaweedfs", folder) as server:
        place = S3Place(
            bucket=s3_servers.BUCKET,
            endpoint_url=server.endpoint_url,
            environment=s3_servers.environment(),
        )
        yield Bucket(place=place, pid=server.pid)
