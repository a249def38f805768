"""What is said of each error of an S3 server, and what to do about it: data."""

from __future__ import annotations

# The right that an operation needs, as policies name it.
RIGHTS = {
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetBucketVersioning": "s3:GetBucketVersioning",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "GetObjectRetention": "s3:GetObjectRetention",
    "PutObjectRetention": "s3:PutObjectRetention",
}

# Operations that ask for a lock of what they write.
LOCKING = {"PutObject", "CreateMultipartUpload"}
NO_LOCK = (
    "The bucket may have no object lock: make one that has, or set object_lock_days "
    "to 0."
)
_REGION = (
    "the bucket {bucket} is in another region or behind another address",
    "Set region, and endpoint_url if there is one, to those of the bucket.",
)
_EXPIRED = (
    "the credentials have expired",
    "Get new ones: log in again, or renew AWS_SESSION_TOKEN.",
)
_FULL = (
    "the store is full",
    "Free some space, prune, or raise the quota; earlier backup sets are untouched.",
)
_DAMAGED = (
    "what arrived at the server is not what was sent",
    "Look at the network and at proxies between here and the store; run again.",
)
_LOCK = (
    "the bucket {bucket} has no object lock",
    "Make a bucket with object lock, or set object_lock_days to 0.",
)
# By the server's code: what failed, and the hint.
BY_CODE = {
    "400": (  # HEAD has no words
        "the server refused without a word",
        "Expired credentials, a wrong region or a wrong address look like this.",
    ),
    "InvalidAccessKeyId": (
        "the access key is not known to the server",
        "Look at AWS_ACCESS_KEY_ID or the profile, and at endpoint_url.",
    ),
    "SignatureDoesNotMatch": (
        "the secret key is wrong",
        "Look at AWS_SECRET_ACCESS_KEY or the profile; it belongs to the access key.",
    ),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "InvalidToken": (
        "the session token is not valid",
        "Unset AWS_SESSION_TOKEN if the key is a lasting one, or get a new token.",
    ),
    "NoSuchBucket": (
        "there is no bucket {bucket}",
        "Create it, or look at url and endpoint_url.",
    ),
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
    "301": _REGION,
    "307": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "RequestTimeTooSkewed": (
        "the clocks of this host and of the server differ too much",
        "Set this host's clock: S3 allows 15 minutes of difference.",
    ),
    "ObjectLockConfigurationNotFoundError": _LOCK,
    "InvalidBucketState": _LOCK,
    "QuotaExceeded": _FULL,
    "InsufficientStorage": _FULL,
    "InsufficientCapacity": _FULL,
    "XMinioStorageFull": _FULL,
    "XMinioAdminBucketQuotaExceeded": _FULL,
    "StorageFull": _FULL,
    "507": _FULL,
    "BadDigest": _DAMAGED,
    "XAmzContentSHA256Mismatch": _DAMAGED,
    "XAmzContentChecksumMismatch": _DAMAGED,
    "EntityTooLarge": (
        "the object or a part of it is larger than the server allows",
        "Lower part_size_bytes, or ask the provider for the limit.",
    ),
    "NoSuchUpload": (
        "the upload is gone before it was completed",
        "Another run or the bucket's lifecycle rules removed it; run again.",
    ),
    "MethodNotAllowed": (
        "the server does not allow this",
        "Look at endpoint_url: it must be the S3 address itself.",
    ),
}
PASSING = {
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
# By the class of boto3's error, where no server answered.
BY_CLASS = (
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


def by_message(message: str) -> str:
    """Return the hint for a refusal that only its words tell apart."""
    small = message.lower()
    if "lock" in small or "retention" in small or "worm" in small:
        return NO_LOCK
    if ("same" in small and "length" in small) or "same size" in small:
        return (
            "The server wants parts of one size: raise part_size_bytes to the size of "
            "the dump divided by an eighth of max_parts."
        )
    if "md5" in small or "checksum" in small or "trailer" in small:
        return 'Set checksums = "when_required" for this store.'
    return "Look at the store's settings; `invoke doctor` tells what it can do."
