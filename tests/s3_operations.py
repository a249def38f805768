"""S3's names of what requests do, from their method and address."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

# By method and the parameter that tells the operation; "" where there is none.
_ON_KEYS = {
    ("PUT", "uploadId"): "UploadPart",
    ("PUT", "retention"): "PutObjectRetention",
    ("PUT", ""): "PutObject",
    ("POST", "uploads"): "CreateMultipartUpload",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("GET", "uploadId"): "ListParts",
    ("GET", "retention"): "GetObjectRetention",
    ("GET", ""): "GetObject",
    ("HEAD", ""): "HeadObject",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("DELETE", ""): "DeleteObject",
}
_ON_BUCKETS = {
    ("POST", "delete"): "DeleteObjects",
    ("GET", "list-type"): "ListObjectsV2",
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "versions"): "ListObjectVersions",
    ("GET", "versioning"): "GetBucketVersioning",
    ("GET", "object-lock"): "GetObjectLockConfiguration",
    ("PUT", ""): "CreateBucket",
    ("HEAD", ""): "HeadBucket",
}


def operation_of(method: str, target: str) -> str:
    """Return S3's name of what a request with the bucket in its path does."""
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    on_key = parts.path.strip("/").count("/") > 0
    table = _ON_KEYS if on_key else _ON_BUCKETS
    for (verb, parameter), name in table.items():
        if verb == method and (parameter in query or not parameter):
            return name
    return f"{method} {parts.query}"
