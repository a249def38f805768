"""Reports of real runs, in real stores: found, signed, and in nobody's way."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from opskit import config
from opskit.log import hide
from opskit.operations.backup import BackupRequest, backup
from opskit.operations.doctor import doctor
from opskit.operations.drill import drill_all
from opskit.operations.ledger import LedgerRequest, ledger
from opskit.operations.outcome import Outcome
from opskit.operations.prune import PruneRequest, prune
from opskit.operations.run import Run, begin
from opskit.operations.sets import BackupsRequest, list_sets
from opskit.operations.verify import VerifyRequest, verify
from opskit.watch.report import Reported, ReportRequest, report
from tests.integration.browsers import chromium
from tests.unit import stock


def configured(folder: Path, more: str = "") -> Run:
    """Return a run with a folder as its source, and two stores."""
    for each in ("data", "near", "far"):
        (folder / each).mkdir(exist_ok=True)
    (folder / "data" / "file").write_text("content")
    text = f"[files.data]\npath = {json.dumps(str(folder / 'data'))}\n"
    for name in ("near", "far"):
        text += f"[stores.{name}]\nurl = {json.dumps((folder / name).as_uri())}\n"
    path = folder / "opskit.toml"
    path.write_text(text + '[drill]\nrto = "1h"\n' + more)
    return begin(config.load(path))


def written(outcome: Outcome[Reported]) -> dict[str, Any]:
    """Return the document of a report that was written."""
    assert outcome.result is not None
    return outcome.result.as_json()


def test_a_report_tells_of_what_was_done(tmp_path: Path) -> None:
    """Both forms lie on this host and in every store, as the document says."""
    backup(configured(tmp_path), BackupRequest())
    drill_all(configured(tmp_path))

    outcome = report(configured(tmp_path), ReportRequest(period="week"))

    assert outcome.exit_code == 0, outcome.errors
    document = written(outcome)
    (data,) = document["sources"]
    assert data["backups"] == {"ok": 1, "failed": 0, "missed": 0}
    assert data["drills"] == {"passed": 1, "failed": 0}
    assert (data["rpo"]["met"], data["rto"]["met"]) == (True, True)
    assert document["stores"] == ["near", "far"]
    place = Path(document["report"]).parent
    assert place == tmp_path / ".opskit" / "reports"
    for store in ("near", "far"):
        (folder,) = (tmp_path / store / "_reports").iterdir()
        names = {each.name for each in folder.iterdir()}
        assert names == {f"{document['name']}.{e}" for e in ("json", "md", "html")}
        for name, sha256 in document["files"].items():
            content = (folder / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == sha256
            assert (place / name).read_bytes() == content
        stored = json.loads((folder / f"{document['name']}.json").read_text())
        assert stored.items() <= document.items()


def test_a_report_disturbs_nothing_that_works_on_stores(tmp_path: Path) -> None:
    """Listing, verifying, pruning and doctor see sets alone; the report stays."""
    backup(configured(tmp_path), BackupRequest())
    report(configured(tmp_path), ReportRequest(period="month"))
    report(configured(tmp_path), ReportRequest(period="month"))
    reports = sorted((tmp_path / "near" / "_reports").rglob("*.*"))
    assert len(reports) == 6

    listed = list_sets(configured(tmp_path), BackupsRequest())
    verified = verify(configured(tmp_path), VerifyRequest())
    pruned = prune(configured(tmp_path), PruneRequest())
    examined = doctor(configured(tmp_path))
    whole = ledger(configured(tmp_path), LedgerRequest(verify=True))

    assert listed.result is not None
    assert len(listed.result.listing.sets) == 1
    assert listed.result.listing.unreadable == ()
    assert (verified.status, pruned.exit_code) == ("ok", 0)
    assert examined.exit_code in (0, 3)
    assert whole.exit_code == 0
    assert whole.result is not None
    entries = whole.result.entries
    assert [e.operation for e in entries].count("report") == 2
    assert sorted((tmp_path / "near" / "_reports").rglob("*.*")) == reports


def test_a_report_is_signed_like_other_evidence(tmp_path: Path) -> None:
    """The stock program believes the document, which names the digests of both forms."""
    public = stock.ssh_key(tmp_path / "key")
    key = tmp_path / "key"
    key.chmod(0o600)
    signing = f"[signing]\nkey_file = {json.dumps(str(key))}\n"
    run = configured(tmp_path, signing)

    document = written(report(run, ReportRequest(period="month")))

    (path,) = (tmp_path / "far" / "_reports").rglob("*.json")
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(f'opskit namespaces="opskit" {public}\n')
    stock.run(
        "ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "opskit", "-n", "opskit",
        "-s", f"{path}.sig", stdin=path.read_bytes(),
    )  # fmt: skip
    assert len(document["files"]) == 2


def test_a_report_that_would_not_be_believed_is_not_made(tmp_path: Path) -> None:
    """Keys are trusted, and none of them signs here: nothing is written."""
    public = stock.ssh_key(tmp_path / "key")
    run = configured(tmp_path, f"[signing]\ntrusted_keys = [{json.dumps(public)}]\n")

    outcome = report(run, ReportRequest(period="month"))

    assert (outcome.exit_code, outcome.result) == (2, None)
    assert "the report would not be signed" in outcome.errors[0].message
    assert not (tmp_path / "near" / "_reports").exists()


def test_a_store_that_fails_is_reported_and_the_others_get_it(tmp_path: Path) -> None:
    """The report on this host is there all the same."""
    run = configured(tmp_path)
    (tmp_path / "near").rmdir()
    (tmp_path / "near").write_text("no folder")

    outcome = report(run, ReportRequest(period="month"))

    assert outcome.exit_code == 10
    document = written(outcome)
    assert document["stores"] == ["far"]
    assert Path(document["report"]).exists()
    last = run.ledger.entries()[-1]
    assert (last.operation, last.details["failed_stores"]) == ("report", ["near"])
    health = {each["name"]: each["status"] for each in document["checks"]}
    assert health["store near"] == "unhealthy"


def test_a_prometheus_that_is_away_keeps_no_report_from_being_written(
    tmp_path: Path,
) -> None:
    """The report says why it has no figures of the service."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        run = configured(tmp_path, f'[slo]\nprometheus_url = "{url}"\n')

        document = written(report(run, ReportRequest(period="month")))

    (service,) = document["service"]
    assert (service["name"], service["passed"]) == ("Prometheus", None)
    assert "Prometheus gives no figures" in service["observed"]
    assert "Prometheus gives no figures" in Path(document["report"]).read_text()


def test_secrets_are_in_no_report(tmp_path: Path) -> None:
    """What the ledger or an error may hold is masked once more."""
    run = configured(tmp_path)
    with run.recorded("backup", "data") as failing:
        failing.begin(source="data")
        failing.details["error"] = "the password hunter2hunter2 is wrong"
    hide("hunter2hunter2")

    document = written(report(run, ReportRequest(period="month")))

    for name in (*document["files"], f"{document['name']}.json"):
        text = (tmp_path / ".opskit" / "reports" / name).read_text()
        assert "hunter2" not in text


def test_the_report_can_be_read_by_anybody(tmp_path: Path) -> None:
    """In a browser without a network, printed on paper, by a screen reader."""
    backup(configured(tmp_path), BackupRequest())
    document = written(report(configured(tmp_path), ReportRequest(period="month")))
    with sync_playwright() as playwright, chromium(playwright) as browser:
        context = browser.new_context(offline=True)
        shown = context.new_page()
        asked: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(Path(document["html"]).as_uri())

        assert asked == [Path(document["html"]).as_uri()]
        assert Axe().run(shown).generate_snapshot() == ""
        assert "Reviewed by" in shown.inner_text("body")
