"""What a server of S3 lets be taken away again: objects, versions, uploads."""

from __future__ import annotations

import contextlib

from opskit.checks import Finding, Health
from opskit.errors import StoreError
from opskit.store import s3_deletion
from opskit.store.s3.trial import BATCH_MAX, DISTRUST, aborted_upload, pages
from opskit.store.s3_scratch import Scratch, denied, not_implemented, unanswered

Told = tuple[Health, str, str]
_UPLOADS_HINT = (
    "Let a lifecycle rule of the bucket abort incomplete uploads after some days."
)


class Deletion:
    """What may be deleted, found out once."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self.complete = False

    def told(self) -> Told:
        """Delete something, and tell what came of it."""
        found = s3_deletion.deletion(self._scratch)
        self.complete = found.complete
        if not found.objects:
            return (
                Health.HEALTHY,
                "these credentials may not delete: backup works, prune needs others",
                "",
            )
        if found.versions is False:
            return (
                Health.HEALTHY,
                "objects can be deleted, versions of them cannot: what prune deletes "
                "stays as noncurrent versions",
                "",
            )
        return (
            Health.HEALTHY,
            "objects and versions of them can be deleted"
            if found.versions
            else "honoured",
            "",
        )


def abort(scratch: Scratch) -> Told:
    """Begin an upload, find it, and drop it."""
    try:
        listed, gone = aborted_upload(scratch)
    except StoreError as error:
        if not (denied(error) or not_implemented(error)):
            raise
        return (
            Health.DEGRADED,
            f"{error.message}; uploads of failed runs stay",
            _UPLOADS_HINT,
        )
    if not listed:
        return (
            Health.DEGRADED,
            "uploads under way are not listed: those of killed runs cannot be found",
            _UPLOADS_HINT,
        )
    if not gone:
        return Health.DEGRADED, "an aborted upload is still listed", _UPLOADS_HINT
    return Health.HEALTHY, "honoured; uploads of killed runs are found and dropped", ""


def batch_delete(scratch: Scratch, deletion: Deletion) -> Told:
    """Delete what the listing was tried on, as many as go into one request."""
    if not deletion.complete:
        return Health.HEALTHY, "not tried: not all that is made could be deleted", ""
    names = [name for page in pages(scratch, BATCH_MAX) for name in page]
    try:
        left = s3_deletion.delete_batch(scratch, names)
    except StoreError as error:
        if unanswered(error):
            raise
        return (
            Health.HEALTHY,
            "refused; opskit deletes one by one, which takes longer",
            "",
        )
    if left:
        raise StoreError(
            f"{len(left)} objects are still listed after they were deleted",
            hint=DISTRUST,
        )
    return (
        Health.HEALTHY,
        f"{min(len(names), BATCH_MAX)} keys deleted by one request",
        "",
    )


def remove(scratch: Scratch) -> Finding | None:
    """Remove what was tried on; return what is left, and where, if it cannot be."""
    try:
        scratch.remove()
    except StoreError as error:
        where = f"{scratch.bucket.name}/{scratch.bucket.full_key(scratch.prefix)}"
        left = "something may be left"
        if not unanswered(error):
            with contextlib.suppress(StoreError):
                left = f"{scratch.left()} objects or versions of them are left"
        return Finding(
            name=f"store {scratch.store.name}: clean-up",
            status=Health.HEALTHY if denied(error) else Health.DEGRADED,
            observed=f"{left} in {where}: {error.message}",
            hint="Delete them with other credentials, or let a lifecycle rule expire "
            "what is below _doctor/.",
        )
    return None
