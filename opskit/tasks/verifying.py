"""Verifies sets and leaves evidence of it beside each copy that was read."""

from __future__ import annotations

from datetime import datetime

from opskit.catalog.catalog import BackupSet
from opskit.catalog.verify import VerifyResult, verify_set
from opskit.checks import Check
from opskit.drill.evidence import Evidence, store_evidence
from opskit.errors import StoreError
from opskit.store import Store
from opskit.tasks import keys, runtime
from opskit.tasks.runtime import Runtime


def verify_everywhere(
    run: Runtime, each: BackupSet
) -> tuple[VerifyResult, list[StoreError]]:
    """Verify a set in every store that holds it.

    Returns also why evidence could not be stored: the finding is told first.
    """
    results = []
    unstored = []
    for store in each.stores:
        started_at = runtime.now()
        results.append(verify_set(each.manifest, store))
        error = record_verification(run, each, store, results[-1], started_at)
        if error is not None:
            unstored.append(error)
    found = VerifyResult(
        objects=sum(result.objects for result in results),
        size_bytes=sum(result.size_bytes for result in results),
        bad=tuple(bad for result in results for bad in result.bad),
    )
    return found, unstored


def record_verification(
    run: Runtime,
    each: BackupSet,
    store: Store,
    result: VerifyResult,
    started_at: datetime,
) -> StoreError | None:
    """Put what a verification found beside the copy; return why that failed, if so."""
    reasons = {bad.key: bad.reason for bad in result.bad}
    checks = tuple(
        Check(
            name=stored.key,
            passed=stored.key not in reasons,
            expected=f"{stored.size_bytes} bytes, sha256 {stored.sha256}",
            detail=reasons.get(stored.key, ""),
        )
        for stored in each.manifest.objects
    )
    evidence = Evidence(
        kind="verify",
        run_id=run.run_id,
        manifest=each.manifest,
        manifest_sha256=each.manifest_sha256,
        started_at=started_at,
        finished_at=runtime.now(),
        checks=checks,
        phases={},
    )
    keys.warn_of_unsigned(run.settings)
    try:
        store_evidence(evidence, None, [store], signer=run.protection.signer)
    except StoreError as error:
        return error
    return None
