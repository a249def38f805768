"""One bucket: the client, made when it is first used, and calls with errors named."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from opskit.config import StoreSettings
from opskit.errors import StoreError, StoreUnavailable
from opskit.store.base import ObjectInfo, RawReader
from opskit.store.s3.errors import Where, translated

_CONNECTIONS_MAX = 8
_FALLBACK_REGION = "us-east-1"


def make_client(settings: StoreSettings) -> Any:
    """Return a client; boto3 finds the credentials, and may ask an instance's role.

    Raises:
        botocore.exceptions.BotoCoreError: the profile is missing or unreadable.
    """
    import boto3
    from botocore.config import Config

    session = boto3.session.Session(
        profile_name=settings.profile or None, region_name=settings.region or None
    )
    seconds = settings.timeout.total_seconds()
    proxies = {"http": settings.proxy, "https": settings.proxy}
    return session.client(
        "s3",
        region_name=session.region_name or _FALLBACK_REGION,
        endpoint_url=settings.endpoint_url or None,
        verify=str(settings.ca_file) if settings.ca_file else None,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": settings.addressing},
            retries={"mode": "standard", "total_max_attempts": settings.attempts},
            connect_timeout=seconds,
            read_timeout=seconds,
            tcp_keepalive=True,
            max_pool_connections=_CONNECTIONS_MAX,
            proxies=proxies if settings.proxy else None,
            request_checksum_calculation=settings.checksums,
            # Asked for where it makes sense: some servers send the checksum of the
            # whole object with a part of it.
            response_checksum_validation="when_required",
        ),
    )


# One that is being gathered, and two on their way.
_PARTS = 3
_SMALL_PART_BYTES = 16 * 1024**2


class Room:
    """Counts the parts that are held, from before their first byte until they are sent.

    However many uploads there are, each can hold the part that it gathers, and there is
    always room for one more: so one of them is on its way, or can be.
    """

    def __init__(self) -> None:
        self._held = self._uploads = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def upload(self) -> Iterator[None]:
        """Count an upload while the block lasts."""
        self._count(uploads=1)
        try:
            yield
        finally:
            self._count(uploads=-1)

    def take(self, part_bytes: int) -> None:
        """Wait until there is room for another part, of about the size given."""
        with self._changed:
            self._changed.wait_for(lambda: self._held < self._limit(part_bytes))
            self._held += 1

    def give_back(self) -> None:
        """A part is no longer held."""
        self._count(held=-1)

    def _limit(self, part_bytes: int) -> int:
        one_more = self._uploads + 1
        return one_more if part_bytes > _SMALL_PART_BYTES else max(_PARTS, one_more)

    def _count(self, *, uploads: int = 0, held: int = 0) -> None:
        with self._changed:
            self._uploads += uploads
            self._held += held
            self._changed.notify_all()


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
        # Whether a put may be conditional; a server without that says so once.
        self.takes_conditions = True
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
                    try:
                        self._client = make_client(self._settings)
                    except ValueError as error:
                        raise StoreError(
                            f"store {self.where.store}: {error}",
                            hint="Look at endpoint_url and region.",
                        ) from error
                weakref.finalize(self, self._client.close)
            return self._client

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

    def read(self, key: str, **parameters: object) -> bytes:
        """Return the bytes of an object that is small.

        Raises:
            StoreError: see `translated`.
        """
        answer = self.on("get_object", key, **parameters)
        with (
            translated(self.where, key, reading=True),
            contextlib.closing(answer["Body"]) as body,
        ):
            return bytes(body.read())

    def pages(
        self, operation: str, field: str, prefix: str
    ) -> Iterator[dict[str, Any]]:
        """Yield the entries of all pages of a listing below a prefix of keys.

        Raises:
            StoreError: see `translated`.
        """
        full_prefix = self.full_key(prefix)
        for entry in self._entries(operation, field, prefix, Prefix=full_prefix):
            # Some servers take `a//` for `a/`.
            if str(entry["Key"]).startswith(full_prefix):
                yield entry

    def pages_of_parts(self, key: str, upload_id: str) -> Iterator[dict[str, Any]]:
        """Yield the parts of an upload that have arrived.

        Raises:
            StoreError: see `translated`.
        """
        full_key = self.full_key(key)
        return self._entries(
            "list_parts", "Parts", key, Key=full_key, UploadId=upload_id
        )

    def _entries(
        self, operation: str, field: str, about: str, **parameters: object
    ) -> Iterator[dict[str, Any]]:
        client = self.client
        with translated(self.where, about):
            pages = client.get_paginator(operation)
            for page in pages.paginate(Bucket=self.name, **parameters):
                yield from page.get(field, [])


def files(objects: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
    """Leave out what consoles make as folders: empty objects with a slash behind."""
    return (each for each in objects if not each.key.endswith("/") and each.key)


def info_of(key: str, head: dict[str, Any]) -> ObjectInfo:
    """Return what HEAD says of an object."""
    return ObjectInfo(
        key=key,
        size_bytes=head["ContentLength"],
        modified_at=whole_seconds(head["LastModified"]),
        etag=etag_of(head),
    )


def etag_of(answer: dict[str, Any]) -> str:
    """Return an ETag without the quotes that most servers put around it."""
    return str(answer.get("ETag", "")).strip('"')  # rclone lists it without quotes


def whole_seconds(moment: datetime) -> datetime:
    """Return a time as HEAD tells it: listings know fractions."""
    return moment.astimezone(UTC).replace(microsecond=0)


class Body(RawReader):
    """An answer's body; reading raises the store's errors.

    Args:
        body: boto3's stream.
        length_bytes: how many bytes must come.
    """

    def __init__(self, body: Any, length_bytes: int, where: Where, key: str) -> None:
        super().__init__(self._received)
        self._body, self._left_bytes = body, length_bytes
        self._where, self._key = where, key

    def _received(self, count: int) -> bytes:
        """Read; `StoreUnavailable` if the connection was cut, or the bytes ended."""
        with translated(self._where, self._key, reading=True):
            got: bytes = self._body.read(count)
        self._left_bytes -= len(got)
        if not got and count and self._left_bytes > 0:
            raise StoreUnavailable(
                f"{self._where.text(self._key)}: {self._left_bytes} bytes are missing "
                "at the end of the server's answer",
                hint="Look at the network between here and the store; run again.",
            )
        return got

    def skip(self, count: int) -> None:
        """Read and forget bytes that were not asked for."""
        while count > 0 and (got := self.read(min(count, 1024**2))):
            count -= len(got)

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()
