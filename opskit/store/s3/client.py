"""One bucket: the client, made when it is first used, and calls with errors named."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import Any

from opskit.config import StoreSettings
from opskit.errors import StoreError
from opskit.store.s3.errors import Where, translated
from opskit.store.s3_client import make_client
from opskit.store.s3_room import Room


class Bucket:
    """A bucket, the prefix of our keys in it, and the client that reaches it."""

    def __init__(self, name: str, settings: StoreSettings) -> None:
        self.name = settings.bucket
        self.prefix = settings.prefix
        self.where = Where(
            store=name,
            bucket=self.name,
            attempts=settings.attempts,
            locks=settings.object_lock_days > 0,
        )
        self.room = Room()
        self._settings = settings
        self._client: Any = None
        self._lock = threading.Lock()

    @property
    def client(self) -> Any:
        """The boto3 client; its connections close when nothing uses the bucket.

        Raises:
            StoreError: the profile is missing.
        """
        with self._lock:
            if self._client is None:
                with translated(self.where):
                    self._client = self._made()
                weakref.finalize(self, self._client.close)
            return self._client

    def _made(self) -> Any:
        try:
            return make_client(self._settings)
        except ValueError as error:
            raise StoreError(
                f"store {self.where.store}: {error}",
                hint="Look at endpoint_url and region.",
            ) from error

    def full_key(self, key: str) -> str:
        """Return the key as the server knows it."""
        return f"{self.prefix}{key}"

    def call(self, operation: str, **parameters: object) -> Any:
        """Call the bucket.

        Raises:
            StoreError: see `translated`.
        """
        client = self.client
        with translated(self.where):
            return getattr(client, operation)(Bucket=self.name, **parameters)

    def on(self, operation: str, key: str, **parameters: object) -> Any:
        """Call the bucket about one object.

        Raises:
            StoreError: see `translated`.
        """
        client = self.client
        with translated(self.where, key):
            return getattr(client, operation)(
                Bucket=self.name, Key=self.full_key(key), **parameters
            )

    def pages(
        self, operation: str, field: str, prefix: str, **parameters: object
    ) -> Iterator[dict[str, Any]]:
        """Yield the entries of all pages of a listing below a prefix of keys.

        Raises:
            StoreError: see `translated`.
        """
        client, full_prefix = self.client, self.full_key(prefix)
        with translated(self.where, prefix):
            pages = client.get_paginator(operation).paginate(
                Bucket=self.name, Prefix=full_prefix, **parameters
            )
            for page in pages:
                # Some servers take `a//` for `a/`.
                for entry in page.get(field, []):
                    if str(entry["Key"]).startswith(full_prefix):
                        yield entry

    def pages_of_parts(self, key: str, upload_id: str) -> Iterator[dict[str, Any]]:
        """Yield the parts of an upload that have arrived.

        Raises:
            StoreError: see `translated`.
        """
        client = self.client
        with translated(self.where, key):
            pages = client.get_paginator("list_parts").paginate(
                Bucket=self.name, Key=self.full_key(key), UploadId=upload_id
            )
            for page in pages:
                yield from page.get("Parts", [])
