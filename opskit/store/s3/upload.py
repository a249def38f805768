"""Puts one object: whole or in parts, never over another, and checked at the end."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opskit.errors import ObjectNotFound, RetriesExhausted, StoreError
from opskit.store.s3 import errors
from opskit.store.s3.client import Bucket
from opskit.store.s3_digest import Sent, base64_of, difference, md5
from opskit.store.s3_multipart import PartsUpload, abort
from opskit.store.s3_parts import PartSizes, cut, handed_on

MARK = "opskit-put"


@dataclass(kw_only=True)
class Abilities:
    """What was learnt of the server while it was used."""

    conditional_put: bool = True


class Put:
    """One object on its way into a bucket.

    Each carries a random mark, so that an answer that was lost can be made up for: if
    the server then says that the key is taken, it may be by this very put.
    """

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        *,
        abilities: Abilities,
        options: dict[str, object],
        sizes: PartSizes,
    ) -> None:
        self._bucket, self._key = bucket, key
        self._abilities, self._sizes = abilities, sizes
        self._mark = uuid.uuid4().hex
        self._options = {**options, "Metadata": {MARK: self._mark}}

    def send(self, chunks: Iterable[bytes]) -> Any:
        """Store the object and return what HEAD says of it.

        Raises:
            ObjectExists: the key is taken.
            StoreError: it could not be stored, or is not what was sent.
        """
        parts = cut(chunks, self._sizes)
        first, is_last = next(parts)
        if is_last:
            sent = self._whole(first)
        else:
            begun = [first]
            del first
            sent = self._in_parts(handed_on(begun, parts))
        return self._checked(sent)

    def _whole(self, content: bytearray) -> Sent:
        digest = md5(content)
        self._commit(
            lambda condition: self._bucket.on(
                "put_object",
                self._key,
                Body=content,
                ContentMD5=base64_of(digest),
                **self._options,
                **condition,
            )
        )
        return Sent(size_bytes=len(content), etag=digest.hex())

    def _in_parts(self, parts: Iterator[bytearray]) -> Sent:
        upload_id = ""
        begun_again = False
        try:
            answer = self._bucket.on(
                "create_multipart_upload", self._key, **self._options
            )
            upload_id = answer["UploadId"]
            told = answer.get("ResponseMetadata", {})
            begun_again = told.get("RetryAttempts", 0) > 0
            upload = PartsUpload(
                self._bucket,
                self._key,
                upload_id,
                max_parts=self._sizes.max_parts,
            )
            sent = upload.send(parts)
            self._commit(
                lambda condition: self._bucket.on(
                    "complete_multipart_upload",
                    self._key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": upload.parts},
                    **condition,
                )
            )
        except BaseException:
            if upload_id:
                # What failed first is what must be told; `unfinished` finds the rest.
                with contextlib.suppress(StoreError):
                    abort(self._bucket, self._key, upload_id)
            raise
        finally:
            if begun_again:
                self._abort_others(upload_id)
        return sent

    def _abort_others(self, upload_id: str) -> None:
        """Drop what an earlier try began, whose answer was lost; nobody else would."""
        with contextlib.suppress(StoreError):
            found = self._bucket.pages("list_multipart_uploads", "Uploads", self._key)
            for each in [*found]:
                ours = each["Key"] == self._bucket.full_key(self._key)
                if ours and each["UploadId"] != upload_id:
                    abort(self._bucket, self._key, each["UploadId"])

    def _commit(self, call: Callable[[dict[str, str]], object]) -> None:
        """Make the object visible, but never over another."""
        self._refuse_if_taken()
        try:
            self._conditionally(call)
        except StoreError as error:
            # The answer to an earlier try may be lost: what is there is then our own.
            found = self._head()
            if found is None or self._mark_of(found) != self._mark:
                raise error

    def _conditionally(self, call: Callable[[dict[str, str]], object]) -> None:
        if self._abilities.conditional_put:
            try:
                call({"IfNoneMatch": "*"})
            except StoreError as error:
                if not errors.is_not_implemented(error.__cause__):
                    raise
                self._abilities.conditional_put = False
            else:
                return
        call({})

    def _refuse_if_taken(self) -> None:
        """Look first: some servers overlook the condition without a word."""
        try:
            self._bucket.on("head_object", self._key)
        except RetriesExhausted:
            raise  # a server that is away will not take the object either
        except StoreError:
            # Without the right to list, a missing object is a refusal.
            return
        raise errors.exists(self._bucket.where, self._key)

    def _head(self) -> Any:
        # An error on top of another proves nothing.
        with contextlib.suppress(StoreError):
            return self._bucket.on("head_object", self._key)
        return None

    @staticmethod
    def _mark_of(found: Any) -> str:
        # Some servers write the names of metadata with capitals.
        metadata = {name.lower(): value for name, value in found["Metadata"].items()}
        return str(metadata.get(MARK, ""))

    def _checked(self, sent: Sent) -> Any:
        """Compare what the server holds with what was sent; delete it if it differs."""
        try:
            found = self._bucket.on("head_object", self._key)
        except ObjectNotFound as error:
            raise StoreError(
                f"{self._bucket.where.text(self._key)}: the server took it and "
                "has it no more",
                hint="Look at the server's state and at the bucket's lifecycle rules.",
            ) from error
        if self._mark_of(found) not in ("", self._mark):
            raise errors.exists(self._bucket.where, self._key)  # put over ours
        amiss = difference(sent, found)
        if amiss:
            with contextlib.suppress(StoreError):
                self._bucket.on("delete_object", self._key)
            raise StoreError(
                f"{self._bucket.where.text(self._key)}: {amiss}",
                hint="What was stored is deleted again; look at the store's health.",
            )
        return found
