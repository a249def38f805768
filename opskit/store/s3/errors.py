"""Turns what boto3 raises into the errors of stores, each with what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opskit.errors import (
    ObjectExists,
    ObjectNotFound,
    RetriesExhausted,
    StoreError,
    StoreUnavailable,
)
from opskit.masking import mask
from opskit.store import s3_words as words

_MISSING = {"NoSuchKey", "NotFound", "404"}
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_DENIED = {"AccessDenied", "Forbidden", "403", "AllAccessDisabled"}
_NOT_IMPLEMENTED = {"NotImplemented", "501"}
_TEXT_MAX = 200


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which store an error is of, how often it asks, and whether it locks objects."""

    store: str
    bucket: str
    attempts: int
    locks: bool = False

    def text(self, key: str) -> str:
        """Return what every message begins with."""
        return f"store {self.store}: {key}" if key else f"store {self.store}"


@contextlib.contextmanager
def translated(where: Where, key: str = "", *, reading: bool = False) -> Iterator[None]:
    """Raise what boto3 raises inside as a `StoreError` that names store and key.

    `reading` means that the answer has begun, which boto3 does not ask again for.

    Raises:
        ObjectNotFound: the server says that there is no such object.
        ObjectExists: it says that a condition on the key does not hold.
        RetriesExhausted: it did not answer properly, however often it was asked.
        StoreUnavailable: its answer broke off.
        StoreError: anything else that boto3 reports.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise answered(error, where, key) from error
    except (BotoCoreError, OSError) as error:
        raise _unanswered(error, where, key, reading=reading) from error
    except RecursionError as error:
        # boto3 follows an address that redirects everything again and again.
        raise StoreError(
            f"{where.text(key)}: the server sends every request elsewhere",
            hint="Look at endpoint_url: it may have to begin with https://.",
        ) from error


def _response(error: BaseException | None) -> dict[str, Any]:
    # boto3's network errors have it too, as None.
    return getattr(error, "response", None) or {}


def code_of(error: BaseException | None) -> str:
    """Return the server's code; of an answer without a body, the HTTP status."""
    response = _response(error)
    return str(response.get("Error", {}).get("Code", ""))


def status_of(error: BaseException | None) -> int:
    """Return the HTTP status of an error that a server answered, else 0."""
    metadata = _response(error).get("ResponseMetadata", {})
    return int(metadata.get("HTTPStatusCode", 0))


def is_not_implemented(error: BaseException | None) -> bool:
    """Return whether the server says that it lacks what it was asked for."""
    return code_of(error) in _NOT_IMPLEMENTED or status_of(error) == 501


def is_denied(error: BaseException | None) -> bool:
    """Return whether the server says that the credentials lack the right."""
    return code_of(error) in _DENIED


def is_missing(error: BaseException | None) -> bool:
    """Return whether the server says that there is no such object."""
    return code_of(error) in _MISSING


def is_taken(error: BaseException | None) -> bool:
    """Return whether the server says that the key is taken, or just being taken."""
    return code_of(error) in _TAKEN or status_of(error) == 412


def answered(error: Exception, where: Where, key: str) -> StoreError:
    """Return the error for what the server answered."""
    code, status = code_of(error), status_of(error)
    operation = str(getattr(error, "operation_name", ""))
    if code in _MISSING:
        return ObjectNotFound(
            f"store {where.store}: there is no object {key}",
            hint="`invoke backups` lists the sets that exist.",
        )
    if is_taken(error):
        return exists(where, key)
    if is_denied(error):
        return _denied(where, key, operation)
    if code in words.BY_CODE:
        said, hint = words.BY_CODE[code]
        said = said.format(bucket=where.bucket)
        return StoreError(f"{where.text(key)}: {said}", hint=hint)
    if code in words.PASSING or status in (429, 500, 502, 503, 504):
        return RetriesExhausted(
            f"{where.text(key)}: the server answered {_short(code or str(status))} to "
            f"{operation}, {_tries(where.attempts)}",
            hint="The server is overloaded or broken for now; look at its state and "
            "run again later.",
        )
    said = _short(f"{code or status} {_message(error)}".strip())
    hint = words.by_message(_message(error))
    if where.locks and code == "InvalidRequest" and operation in words.LOCKING:
        hint = words.NO_LOCK
    return StoreError(
        f"{where.text(key)}: the server refused {operation}: {said}", hint=hint
    )


def exists(where: Where, key: str) -> ObjectExists:
    """Return the error for a key that is taken."""
    return ObjectExists(
        f"store {where.store}: {key} exists already",
        hint="Another run has written it; nothing was changed.",
    )


def _denied(where: Where, key: str, operation: str) -> StoreError:
    right = words.RIGHTS.get(operation, f"s3:{operation}")
    return StoreError(
        f"{where.text(key)}: the credentials lack the right {right}",
        hint=f"Grant {right} on the bucket {where.bucket}, or use other credentials; a "
        "wrong secret or a wrong clock may look the same.",
        details={"right": right},
    )


def _unanswered(
    error: Exception, where: Where, key: str, *, reading: bool
) -> StoreError:
    """Return the error for a request that never got its whole answer."""
    from botocore.exceptions import (
        ChecksumError,
        FlexibleChecksumError,
        HTTPClientError,
    )
    from botocore.exceptions import ConnectionError as NoConnection

    said, hint = _known(error)
    if reading and not isinstance(error, FlexibleChecksumError | ChecksumError):
        return StoreUnavailable(f"{where.text(key)}: {said}", hint=hint)
    # These are what boto3 has asked again for.
    if isinstance(error, NoConnection | HTTPClientError):
        return RetriesExhausted(
            f"{where.text(key)}: {said}, {_tries(where.attempts)}", hint=hint
        )
    return StoreError(f"{where.text(key)}: {said}", hint=hint)


def _known(error: Exception) -> tuple[str, str]:
    for kind in type(error).__mro__:
        for names, said, hint in words.BY_CLASS:
            if kind.__name__ in names:
                return said, hint
    return _short(str(error)), "Look at the store's settings and at the network."


def _tries(attempts: int) -> str:
    return f"after {attempts} attempt{'s' if attempts != 1 else ''}"


def _message(error: Exception) -> str:
    response = _response(error)
    return str(response.get("Error", {}).get("Message", ""))


def _short(text: str) -> str:
    """Return one line that shows no password and stays readable."""
    return mask(" ".join(text.split()))[:_TEXT_MAX]
