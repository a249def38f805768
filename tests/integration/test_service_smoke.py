"""The service as opskit sees it: every probe of its configuration passes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.conftest import Project
from tests.service import STRICT, Services

# The address of the tests is http, and nothing of theirs is stopped here.
NOT_CONFIGURED = {"tls", "resilience", "load"}


def _patient(text: str) -> str:
    """Return the configuration for a machine that is busy with other tests."""
    for before, after in {
        'latency = { p95 = "500ms", p99 = "1s" }': 'latency = { p95 = "5s", p99 = "8s" }',
        "[smoke]\n": '[smoke]\ndeadline = "20m"\n',
    }.items():
        assert before in text
        text = text.replace(before, after)
    return text


def test_the_service_passes_the_strict_probes(
    services: Services, tmp_path: Path
) -> None:
    """With the version that it was given, and with nothing left out in silence."""
    with services.running(version="3.2.1", **STRICT) as service:
        path = service.configuration(tmp_path)
        path.write_text(_patient(path.read_text()))
        output = Project(tmp_path, url="").run(
            "smoke", "--profile", "strict", "--version", "3.2.1", "--json"
        )

    document = json.loads(output)
    wrong = [each for each in document["checks"] if each["passed"] is not True]
    assert [each for each in wrong if each["family"] not in NOT_CONFIGURED] == []
    assert document["status"] == "passed"
