"""The service as opskit sees it: every probe of its configuration passes."""

from __future__ import annotations

from tests.service import STRICT, Services

# The address of the tests is http; what belongs to https is probed elsewhere.
NOT_CONFIGURED = {"tls"}


def test_the_service_passes_the_strict_probes(services: Services) -> None:
    """With the version that it was given, and with nothing left out in silence."""
    with services.running(version="3.2.1", **STRICT) as service:
        code, document = service.smoke("--profile", "strict", "--version", "3.2.1")

    wrong = [each for each in document["checks"] if each["passed"] is not True]
    assert [each for each in wrong if each["family"] not in NOT_CONFIGURED] == []
    assert (code, document["status"]) == (0, "passed")
