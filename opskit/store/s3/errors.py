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
from opskit.log import mask

# The rights of operations that are not named like the operation.
_RIGHTS = {
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "DeleteObjects": "s3:DeleteObject",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
}
# Operations that ask for a lock of what they write.
_LOCKING = {"PutObject", "CreateMultipartUpload"}
_NO_LOCK = (
    "The bucket may have no object lock: make one that has, or set object_lock_days "
    "to 0."
)
_Table = tuple[tuple[set[str], str, str], ...]
# What failed, and the hint, by the server's codes.
_BY_CODE: _Table = (
    (
        {"400"},  # HEAD has no words
        "the server refused without a word",
        "Expired credentials, a wrong region or a wrong address look like this.",
    ),
    (
        {"InvalidAccessKeyId"},
        "the access key is not known to the server",
        "Look at AWS_ACCESS_KEY_ID or the profile, and at endpoint_url.",
    ),
    (
        {"SignatureDoesNotMatch"},
        "the secret key is wrong",
        "Look at AWS_SECRET_ACCESS_KEY or the profile; it belongs to the access key.",
    ),
    (
        {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired",
         "RequestExpired"},
        "the credentials have expired",
        "Get new ones: log in again, or renew AWS_SESSION_TOKEN.",
    ),
    (
        {"InvalidToken"},
        "the session token is not valid",
        "Unset AWS_SESSION_TOKEN if the key is a lasting one, or get a new token.",
    ),
    (
        {"NoSuchBucket"},
        "there is no bucket {bucket}",
        "Create it, or look at url and endpoint_url.",
    ),
    (
        {"PermanentRedirect", "TemporaryRedirect", "301", "307",
         "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"},
        "the bucket {bucket} is in another region or behind another address",
        "Set region, and endpoint_url if there is one, to those of the bucket.",
    ),
    (
        {"RequestTimeTooSkewed"},
        "the clocks of this host and of the server differ too much",
        "Set this host's clock: S3 allows 15 minutes of difference.",
    ),
    (
        {"ObjectLockConfigurationNotFoundError", "InvalidBucketState"},
        "the bucket {bucket} has no object lock",
        "Make a bucket with object lock, or set object_lock_days to 0.",
    ),
    (
        {"QuotaExceeded", "InsufficientStorage", "InsufficientCapacity", "StorageFull",
         "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"},
        "the store is full",
        "Free some space, prune, or raise the quota; earlier backup sets are "
        "untouched.",
    ),
    (
        {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"},
        "what arrived at the server is not what was sent",
        "Look at the network and at proxies between here and the store; run again.",
    ),
    (
        {"EntityTooLarge"},
        "the object or a part of it is larger than the server allows",
        "Lower part_size_bytes, or ask the provider for the limit.",
    ),
    (
        {"NoSuchUpload"},
        "the upload is gone before it was completed",
        "Another run or the bucket's lifecycle rules removed it; run again.",
    ),
    (
        {"MethodNotAllowed"},
        "the server does not allow this",
        "Look at endpoint_url: it must be the S3 address itself.",
    ),
)  # fmt: skip
_PASSING = {
    "SlowDown", "ServiceUnavailable", "InternalError", "InternalFailure", "Throttling",
    "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "RequestTimeout",
    "BandwidthLimitExceeded", "OperationAborted", "500", "502", "503", "504", "408",
    "429",
}  # fmt: skip
_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
    "NoAuthTokenError", "TokenRetrievalError", "ProfileNotFound", "SSOError",
    "SSOTokenLoadError", "UnauthorizedSSOTokenError", "LoginError", "ConfigParseError",
    "LoginRefreshRequired", "LoginTokenLoadError", "MetadataRetrievalError",
    "LoginInsufficientPermissions", "UnknownCredentialError", "InvalidConfigError",
    "MissingDependencyException",
}  # fmt: skip
# The same by the class of boto3's error, if no server answered.
_BY_CLASS: _Table = (
    (
        _CREDENTIALS,
        "there are no usable credentials",
        "Give them the AWS way: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a "
        "profile, a web identity or an instance role.",
    ),
    (
        {"EndpointConnectionError"},
        "the server cannot be reached",
        "Look at endpoint_url, at the name service and whether the server is up.",
    ),
    (
        {"ConnectionClosedError", "HTTPClientError", "ResponseStreamingError",
         "IncompleteReadError"},
        "the connection was cut",
        "Look at the network between here and the store; run again.",
    ),
    (
        {"ConnectTimeoutError", "ReadTimeoutError"},
        "the server did not answer in time",
        "Look at the server and the network, or raise timeout.",
    ),
    (
        {"ProxyConnectionError", "InvalidProxiesConfigError"},
        "the proxy cannot be reached",
        "Look at proxy, or at HTTPS_PROXY and NO_PROXY in the environment.",
    ),
    (
        {"SSLError"},
        "the server's certificate cannot be trusted, or TLS failed",
        "Name the certificate of its authority with ca_file; look at endpoint_url.",
    ),
    (
        {"FlexibleChecksumError", "ChecksumError"},
        "what arrived does not match the server's checksum",
        "Read again; if it stays so, the object is damaged.",
    ),
)  # fmt: skip


def _known(name: str, table: _Table) -> tuple[str, str] | None:
    return next(((said, hint) for names, said, hint in table if name in names), None)


def _by_message(message: str) -> str:
    """Return the hint for a refusal that only its words tell apart."""
    small = message.lower()
    if "lock" in small or "retention" in small or "worm" in small:
        return _NO_LOCK
    if ("same" in small and "length" in small) or "same size" in small:
        return (
            "The server wants parts of one size: raise part_size_bytes to the size of "
            "the dump divided by an eighth of max_parts."
        )
    if "md5" in small or "checksum" in small or "trailer" in small:
        return 'Set checksums = "when_required" for this store.'
    return "Look at the store's settings; `invoke doctor` tells what it can do."


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


def is_refused(error: BaseException | None) -> bool:
    """Return whether the server refused the request."""
    return 400 <= status_of(error) < 500


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
    if known := _known(code, _BY_CODE):
        said, hint = known
        said = said.format(bucket=where.bucket)
        return StoreError(f"{where.text(key)}: {said}", hint=hint)
    if code in _PASSING or status in (429, 500, 502, 503, 504):
        return RetriesExhausted(
            f"{where.text(key)}: the server answered {_short(code or str(status))} to "
            f"{operation}, {_tries(where.attempts)}",
            hint="The server is overloaded or broken for now; look at its state and "
            "run again later.",
        )
    said = _short(f"{code or status} {_message(error)}".strip())
    hint = _by_message(_message(error))
    if where.locks and code == "InvalidRequest" and operation in _LOCKING:
        hint = _NO_LOCK
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
    right = _RIGHTS.get(operation, f"s3:{operation}")
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

    kinds = (_known(kind.__name__, _BY_CLASS) for kind in type(error).__mro__)
    said, hint = next(
        filter(None, kinds),
        (_short(str(error)), "Look at the store's settings and at the network."),
    )
    if reading and not isinstance(error, FlexibleChecksumError | ChecksumError):
        return StoreUnavailable(f"{where.text(key)}: {said}", hint=hint)
    # These are what boto3 has asked again for.
    if isinstance(error, NoConnection | HTTPClientError):
        return RetriesExhausted(
            f"{where.text(key)}: {said}, {_tries(where.attempts)}", hint=hint
        )
    return StoreError(f"{where.text(key)}: {said}", hint=hint)


def _tries(attempts: int) -> str:
    return f"after {attempts} attempt{'s' if attempts != 1 else ''}"


def _message(error: Exception) -> str:
    response = _response(error)
    return str(response.get("Error", {}).get("Message", ""))


def _short(text: str) -> str:
    """Return one line that shows no password and stays readable."""
    return mask(" ".join(text.split()))[:_TEXT_MAX]
