"""`smoke` as a command: exit codes, words, documents, files, records, known failures."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from opskit.ledger import Ledger, LedgerEntry
from tests.listening import Ended, answer, listening, run

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
CSP, FRAMES, NOSNIFF, REFERRER = (
    f"headers.{name}" for name in ("csp", "frame-options", "nosniff", "referrer-policy")
)
CHECK = {"name", "family", "passed", "expected", "observed", "detail", "advisory"}


@dataclass
class Service:
    """Names its version, and knows no other path; it may lack headers, or be away.

    The `old` are named first, one for each request.
    """

    lacks: set[str] = field(default_factory=set)
    away: bool = False
    version: str = "1"
    old: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    address: str = ""

    @property
    def requests(self) -> int:
        """How many have come in."""
        return len(self.heads)

    def __call__(
        self, connection: socket.socket, head: bytes, _ended: threading.Event
    ) -> None:
        """Answer one request."""
        self.heads.append(head)
        sent = "".join(
            f"{name}: {value}\r\n"
            for name, value in HEADERS.items()
            if name not in self.lacks
        )
        if head.startswith(b"GET /health "):
            version = self.old.pop() if self.old else self.version
            body = json.dumps({"version": version}).encode()
            connection.sendall(answer(body, headers=sent))
        elif self.away:
            connection.sendall(answer(b"", status=503))
        else:
            connection.sendall(answer(b"", status=404, headers=sent))


@contextmanager
def serving(**state: Any) -> Iterator[Service]:
    """Serve one for the block."""
    service = Service(**state)
    with listening(service) as service.address:
        yield service


def smoke(
    folder: Path,
    service: Service,
    *arguments: str,
    keys: str = "",
    deadline: str = "1s",
) -> Ended:
    """Ask a service; `keys` belong to [smoke]."""
    configuration = (
        f'[smoke]\nurl = "http://{service.address}"\ndeadline = "{deadline}"\n'
        f"connections = 2\nlimits.slow_clients = 0\n{keys}\n"
    )
    ended = run(folder, configuration, *arguments)
    assert "Traceback" not in ended.errors
    return ended


def records(folder: Path) -> list[LedgerEntry]:
    """Return what the ledger says of runs, the oldest first."""
    path = folder / "state" / "ledger.jsonl"
    return Ledger(path).entries() if path.exists() else []


def cells(row: str) -> list[str]:
    """Return the cells of a row of a Markdown table."""
    return [each.strip() for each in re.split(r"(?<!\\)\|", row)[1:-1]]


def test_the_exit_code_and_the_words_tell_the_verdict(tmp_path: Path) -> None:
    """0 passed; 61 failed, or inconclusive, which is no reason to roll back."""
    with serving(old=["0"]) as service:
        good = smoke(tmp_path, service, "--version", "1", deadline="60s")
        asked = service.requests
        other = smoke(tmp_path, service, "--version", "2")
        service.away = True
        away = smoke(tmp_path, service)
        service.lacks = {"X-Content-Type-Options"}
        service.away = False
        bad = smoke(tmp_path, service)

    assert good.code == 0, good.errors
    assert good.errors == ""
    assert good.output.startswith(
        "asked again     version (connection 1 names 0, not 1)\npassed          version\n"
    )
    assert f"passed          {NOSNIFF}\n" in good.output
    (last,) = good.output.splitlines()[-1:]
    assert re.fullmatch(r"passed: (\d+) of \1 probes passed, .*", last)
    assert f", {asked} requests, " in last

    assert other.code == 61
    assert "expected version 2 on 2 connections in a row" in other.output
    assert f"not asked       {int(last.split()[1]) - 1} other probes" in other.output
    assert NOSNIFF not in other.output
    assert other.errors.startswith(
        "error: the result is inconclusive: the version was not confirmed: "
        "connection 1 names 1, not 2\nhint: This is no reason to roll back"
    )

    assert away.code == 61
    assert f"inconclusive    {NOSNIFF}" in away.output
    assert "\ninconclusive: " in away.output
    assert away.errors.startswith(
        f"error: the result is inconclusive: {CSP} and 6 others\nhint: "
    )
    assert "hint: This is no reason to roll back" in away.errors
    # What is the same in each repeat: people are notified of what is new.
    recorded = records(tmp_path)[2].details
    assert recorded["error"] == "the result is inconclusive"
    assert CSP in str(recorded["inconclusive"])

    assert bad.code == 61
    assert f"failed          {NOSNIFF}\n" in bad.output
    assert "\nfailed: " in bad.output
    assert bad.errors.startswith(f"error: 1 probe failed: {NOSNIFF}\nhint: `")
    assert f"smoke --explain {NOSNIFF}` says what to change." in bad.errors


def test_the_document_the_files_and_the_record_agree(tmp_path: Path) -> None:
    """One run in which a probe fails, one is known, one advisory, one family silent."""
    (tmp_path / "known.toml").write_text(_known(CSP, "2999-12-31"))
    with serving(lacks={*HEADERS} - {"X-Frame-Options"}) as service:
        ended = smoke(
            tmp_path,
            service,
            *("--json", "--junit", "junit.xml", "--markdown", "report.md"),
            keys=f'baseline = "known.toml"\nadvisory = ["{REFERRER}"]',
        )
    document = json.loads(ended.output)
    checks = {each["name"]: each for each in document["checks"]}

    assert ended.code == 61, ended.errors
    assert document["status"] == "failed"
    assert document["code"] == 61
    assert document["error"] == f"1 probe failed: {NOSNIFF}"
    assert document["requests"] == service.requests
    assert 0 < document["seconds"] < ended.seconds
    assert all(each.keys() == CHECK for each in document["checks"])
    assert all(type(each["advisory"]) is bool for each in document["checks"])
    assert all(each["name"].startswith(each["family"]) for each in document["checks"])
    assert {name for name, each in checks.items() if each["passed"] is not True} == {
        CSP, NOSNIFF, REFERRER,
    }  # fmt: skip
    assert {name for name, each in checks.items() if each["advisory"]} == {REFERRER}
    assert document["known"] == [CSP]
    assert checks[CSP]["detail"] == "known to web team until 2999-12-31: it is old"
    assert checks[NOSNIFF]["observed"].startswith("GET /health (200): none")
    assert "cors" in document["not_configured"]
    assert document["not_in_profile"] == []

    (suite,) = ElementTree.parse(tmp_path / "junit.xml").getroot()
    cases = {str(each.get("name")): each for each in suite.iter("testcase")}
    assert len(cases) == len(suite) - 1 == int(str(suite.get("tests")))
    assert [each.attrib for each in suite.iter("property")] == [
        {"name": "requests", "value": str(service.requests)}
    ]
    kinds = {name: each[0].tag for name, each in cases.items() if len(each)}
    silent = {*document["not_configured"]}
    assert cases.keys() == checks.keys() | silent
    assert {name for name, kind in kinds.items() if kind == "failure"} == {NOSNIFF}
    assert {n for n, k in kinds.items() if k == "skipped"} == {CSP, REFERRER} | silent
    assert suite.get("failures") == "1"
    assert suite.get("errors") == "0"
    assert suite.get("skipped") == str(len(silent) + 2)

    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Smoke: failed\n\nFailed: ")
    assert f", {service.requests} requests, " in text
    rows = [cells(each) for each in text.splitlines() if each.startswith("|")]
    facts = {row[0]: row[1] for row in rows if len(row) == 2}
    found = {row[1]: row[0] for row in rows if len(row) == 5 and row[1] in checks}
    assert facts["service"] == f"http://{service.address}"
    assert facts["not configured"] == ", ".join(document["not_configured"])
    assert found.keys() == checks.keys()
    assert found[NOSNIFF] == "**failed**"
    assert found[CSP] == "**failed (known)**"
    assert found[REFERRER] == "**failed (advisory)**"
    assert found["version"] == "passed"

    (record,) = records(tmp_path)
    assert (record.operation, record.outcome) == ("smoke", "failed")
    assert record.run_id == document["run_id"]
    assert record.details == {
        "url": f"http://{service.address}",
        "profile": "standard",
        "version": "",
        "status": "failed",
        "requests": service.requests,
        "failed": [NOSNIFF],
        "inconclusive": [],
        "error": f"1 probe failed: {NOSNIFF}",
        "code": 61,
    }


def _known(probe: str, expires: str) -> str:
    return (
        f'[[known]]\nprobe = "{probe}"\nowner = "web team"\nreason = "it is old"\n'
        f"expires = {expires}\n"
    )


def test_a_known_failure_counts_again_when_it_has_expired(tmp_path: Path) -> None:
    """When the probe passes, the entry can be removed, expired or not."""
    (tmp_path / "known.toml").write_text(
        _known(CSP, "2999-12-31")
        + _known(NOSNIFF, "2020-12-31")
        + _known(FRAMES, "2999-12-31")
        + _known(REFERRER, "2020-12-31")
    )
    with serving(lacks={"Content-Security-Policy", "X-Content-Type-Options"}) as it:
        ended = smoke(tmp_path, it, keys='baseline = "known.toml"')

    assert ended.code == 61
    assert ended.errors.startswith(f"error: 1 probe failed: {NOSNIFF}\n")
    assert f"failed (known)  {CSP}\n" in ended.output
    assert " known to web team until 2999-12-31: it is old\n" in ended.output
    assert f"failed          {NOSNIFF}\n" in ended.output
    assert "known to web team until 2020-12-31, which has expired\n" in ended.output
    for name in (FRAMES, REFERRER):
        assert re.search(
            rf"passed +{name}\n +it passes now: remove it from the baseline\n",
            ended.output,
        )


def test_what_is_known_or_advisory_is_shown_and_fails_no_run(tmp_path: Path) -> None:
    """Two probes fail by all that they ask, and the run passes."""
    (tmp_path / "known.toml").write_text(_known(CSP, "2999-12-31"))
    # That of TLS is for another address.
    keys = f'advisory = ["{NOSNIFF}", "tls.chain"]\nbaseline = "known.toml"'
    with serving(lacks={"Content-Security-Policy", "X-Content-Type-Options"}) as it:
        ended = smoke(tmp_path, it, keys=keys)

    assert ended.code == 0, ended.errors
    assert f"failed (known)  {CSP}\n" in ended.output
    assert f"failed (advisory)  {NOSNIFF}\n" in ended.output
    assert "\npassed: 6 of 8 probes passed, " in ended.output
