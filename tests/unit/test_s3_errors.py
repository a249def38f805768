"""What boto3 raises, as the errors of stores: the kind, the words, what to do."""

from __future__ import annotations

import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError

from opskit.errors import (
    ObjectExists,
    ObjectNotFound,
    RetriesExhausted,
    StoreError,
    StoreUnavailable,
)
from opskit.store.s3.errors import Where, translated

WHERE = Where(store="off", bucket="acme", attempts=6)
LOCKING = Where(store="off", bucket="acme", attempts=6, locks=True)


def _raised(
    error: BaseException, *, where: Where = WHERE, reading: bool = False
) -> StoreError:
    with (
        pytest.raises(StoreError) as raised,
        translated(where, "shop/dump", reading=reading),
    ):
        raise error
    assert raised.value.__cause__ is error
    return raised.value


def _answer(
    code: str, *, status: int = 400, operation: str = "PutObject", message: str = ""
) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},
        },
        operation,
    )


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        ("InvalidAccessKeyId", "the access key is not known", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "the secret key is wrong", "AWS_SECRET_ACCESS_KEY"),
        ("ExpiredToken", "the credentials have expired", "Get new ones"),
        ("NoSuchBucket", "there is no bucket acme", "Create it"),
        ("PermanentRedirect", "the bucket acme is in another region", "Set region"),
        ("301", "the bucket acme is in another region", "Set region"),
        ("AuthorizationHeaderMalformed", "is in another region", "Set region"),
        ("RequestTimeTooSkewed", "the clocks of this host and", "Set this host's"),
        (
            "InvalidBucketState",
            "the bucket acme has no object lock",
            "object_lock_days",
        ),
        ("QuotaExceeded", "the store is full", "prune"),
        ("507", "the store is full", "prune"),
        ("BadDigest", "what arrived at the server is not what was sent", "network"),
        ("NoSuchUpload", "the upload is gone", "lifecycle"),
        ("Odd", "the server refused PutObject: Odd", "doctor"),
    ],
)
def test_refusals_say_what_to_do(code: str, message: str, hint: str) -> None:
    """Each names the store and the key, and is asked only once."""
    found = _raised(_answer(code))

    assert found.message.startswith("store off: shop/dump: ")
    assert message in found.message
    assert hint in found.hint
    assert found.exit_code == 10
    assert not isinstance(found, StoreUnavailable)


@pytest.mark.parametrize(
    ("operation", "right"),
    [
        ("PutObject", "s3:PutObject"),
        ("UploadPart", "s3:PutObject"),
        ("HeadObject", "s3:GetObject"),
        ("GetObject", "s3:GetObject"),
        ("ListObjectsV2", "s3:ListBucket"),
        ("ListMultipartUploads", "s3:ListBucketMultipartUploads"),
        ("DeleteObject", "s3:DeleteObject"),
        ("DeleteObjects", "s3:DeleteObject"),
        ("PutBucketPolicy", "s3:PutBucketPolicy"),
    ],
)
@pytest.mark.parametrize("code", ["AccessDenied", "403"])
def test_a_missing_right_is_named(operation: str, right: str, code: str) -> None:
    """Also where the answer has no body, and its code is a number."""
    found = _raised(_answer(code, status=403, operation=operation))

    assert found.message == (
        f"store off: shop/dump: the credentials lack the right {right}"
    )
    assert found.details == {"right": right}


@pytest.mark.parametrize("code", ["NoSuchKey", "404", "NotFound"])
def test_a_missing_object_is_told(code: str) -> None:
    """In each of the ways that servers have for it."""
    found = _raised(_answer(code, status=404, operation="HeadObject"))

    assert isinstance(found, ObjectNotFound)
    assert found.message == "store off: there is no object shop/dump"


@pytest.mark.parametrize("code", ["PreconditionFailed", "412", "409"])
def test_a_key_that_is_taken_is_told(code: str) -> None:
    """A condition that does not hold means that somebody was there before."""
    assert isinstance(_raised(_answer(code, status=412)), ObjectExists)


@pytest.mark.parametrize(
    ("code", "status"),
    [("SlowDown", 503), ("InternalError", 500), ("500", 500), ("", 502), ("429", 429)],
)
def test_a_storm_is_told_with_the_attempts(code: str, status: int) -> None:
    """What boto3 has asked for in vain is not asked for again by others."""
    found = _raised(_answer(code, status=status))

    assert isinstance(found, RetriesExhausted)
    assert found.message == (
        f"store off: shop/dump: the server answered {code or status} to PutObject, "
        "after 6 attempts"
    )


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (boto.EndpointConnectionError(endpoint_url="http://x"), "cannot be reached", "is up"),
        (boto.ConnectionClosedError(endpoint_url="http://x"), "connection was cut", "network"),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), "in time", "timeout"),
        (boto.ReadTimeoutError(endpoint_url="http://x"), "in time", "timeout"),
        (boto.SSLError(endpoint_url="https://x", error="x"), "certificate", "ca_file"),
        (boto.ProxyConnectionError(proxy_url="http://x"), "the proxy", "HTTPS_PROXY"),
    ],
)  # fmt: skip
def test_a_network_in_trouble_is_told(
    error: Exception, message: str, hint: str
) -> None:
    """Before an answer boto3 has tried again; in the middle of one it has not."""
    asked, reading = _raised(error), _raised(error, reading=True)

    assert message in asked.message
    assert asked.message.endswith(", after 6 attempts")
    assert hint in asked.hint
    assert type(asked) is RetriesExhausted
    assert type(reading) is StoreUnavailable


@pytest.mark.parametrize(
    "error",
    [
        boto.ResponseStreamingError(error="x"),
        boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        ConnectionResetError(104, "reset"),
    ],
)
def test_an_answer_that_breaks_off_may_be_asked_for_again(error: Exception) -> None:
    """Whoever reads can go on where it was."""
    assert type(_raised(error, reading=True)) is StoreUnavailable


def test_damage_on_the_way_is_not_read_over() -> None:
    """A wrong checksum at the end must not be made good by asking for nothing more."""
    found = _raised(boto.FlexibleChecksumError(error_msg="x"), reading=True)

    assert type(found) is StoreError
    assert "checksum" in found.message


@pytest.mark.parametrize(
    "error",
    [
        boto.NoCredentialsError(),
        boto.PartialCredentialsError(provider="env", cred_var="x"),
        boto.CredentialRetrievalError(provider="x", error_msg="y"),
        boto.ProfileNotFound(profile="x"),
    ],
)
def test_missing_credentials_are_told(error: Exception) -> None:
    """They say where they should come from."""
    found = _raised(error)

    assert found.message.endswith("there are no usable credentials")
    assert "AWS_ACCESS_KEY_ID" in found.hint
    assert not isinstance(found, StoreUnavailable)


def test_a_bucket_that_refuses_the_lock_is_told() -> None:
    """A server may say no more than that the request is not valid."""
    error = _answer("InvalidRequest", message="Invalid Request")

    assert "object lock" in _raised(error, where=LOCKING).hint
    assert "object lock" not in _raised(error).hint


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("All non-trailing parts must have the same length.", "part_size_bytes"),
        ("Missing required header: Content-MD5", "when_required"),
    ],
)
def test_dialects_are_helped_with(message: str, hint: str) -> None:
    """What a provider is known to refuse names the setting for it."""
    assert hint in _raised(_answer("Odd", message=message)).hint


def test_no_secret_is_repeated() -> None:
    """What the server says is shown on one line, masked and short."""
    error = _answer("Odd", message="password=hunter2 in\nline two " + "x" * 1000)
    found = _raised(error)

    assert "hunter2" not in found.message
    assert "\n" not in found.message
    assert len(found.message) < 300
