"""A real Prometheus: it scrapes opskit, alerts fire in it, and dashboards have data."""

from __future__ import annotations

import json
import re
import shlex
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from opskit import config
from opskit.checks import Health
from opskit.config import Settings
from opskit.operations.backup import BackupRequest, backup
from opskit.operations.drill import RestoreDrillRequest, drill
from opskit.operations.run import begin
from opskit.runbook.text import read
from opskit.watch import dashboards, metrics
from opskit.watch.report import ReportRequest, report
from opskit.watch.rules import render
from opskit.watch.slo import checks
from tests import watching
from tests.ports import free_port
from tests.unit import stock
from tests.unit.states import fleet
from tests.unit.test_rules import alerts
from tests.watching import Prometheus, Scheduler, at_once, target, until

ROOT = Path(__file__).resolve().parents[2]
# What each scrape of the service adds: so many requests of each status.
STATUSES = {"200": 95, "429": 3, "500": 2}
FAST, SLOW = 0.05, 0.9  # seconds; of each scrape's answers, every tenth is slow


class Service(BaseHTTPRequestHandler):
    """A service in use: whenever its metrics are read, it has had more requests."""

    def do_GET(self) -> None:
        """Count some requests, then show the metrics."""
        server = self.server
        assert isinstance(server, ServiceServer)
        body = server.metrics()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class ServiceServer(ThreadingHTTPServer):
    """The metrics of a service under their usual names, and of a fleet beside it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Service)
        shown = metrics.render(fleet(3), Health.HEALTHY).decode()
        lines = (each for each in shown.splitlines(keepends=True) if "_fleet_" in each)
        self.fleet = "".join(lines).encode()
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests", "Requests.", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "http_request_duration_seconds", "Latency.", registry=self.registry
        )

    def metrics(self) -> bytes:
        """Return the metrics after some more requests."""
        for status, number in STATUSES.items():
            self.requests.labels(status).inc(number)
        for number in range(100):
            self.seconds.observe(SLOW if number % 10 == 0 else FAST)
        return generate_latest(self.registry) + self.fleet


@dataclass(frozen=True)
class Watched(Prometheus):
    """A Prometheus that scrapes a service and a scheduler, and the configuration."""

    settings: Settings
    scheduler: Scheduler


def configured(folder: Path, port: int, prometheus_url: str) -> Settings:
    """Back two folders up, and drill them; one of them is stale at once."""
    for name in ("store", "hasty", "patient"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("content")
    (folder / "key").write_text("the key\n")
    (folder / "key").chmod(0o600)
    text = f"""\
[stores.near]
url = {json.dumps((folder / "store").as_uri())}
[files.hasty]
path = {json.dumps(str(folder / "hasty"))}
schedule = "@yearly"
max_age = "1s"
[files.patient]
path = {json.dumps(str(folder / "patient"))}
schedule = "@yearly"
[scheduler]
listen = "127.0.0.1:{port}"
api_key_file = {json.dumps(str(folder / "key"))}
verify = ""
drill = ""
prune = ""
report = ""
[notify]
runbooks_url = "https://git.example/runbooks/"
[slo]
availability = 99.9
error_rate = 0.01
latency = {{ p95 = "500ms", p99 = "1s" }}
labels = {{ job = "service" }}
prometheus_url = {json.dumps(prometheus_url)}
"""
    path = folder / "opskit.toml"
    path.write_text(text)
    settings = config.load(path)
    assert backup(begin(settings), BackupRequest()).exit_code == 0
    for name in settings.files:
        assert drill(begin(settings), RestoreDrillRequest(files=name)).exit_code == 0
    return settings


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Prometheus with the rules, which need not hold for minutes here."""
    folder = tmp_path_factory.mktemp("prometheus")
    port, own_port = free_port(), free_port()
    url = f"http://127.0.0.1:{own_port}"
    with ExitStack() as stack:
        settings = configured(folder, port, url)
        scheduler = Scheduler(folder, stack)
        service = stack.enter_context(ServiceServer())
        threading.Thread(target=service.serve_forever, daemon=True).start()
        stack.callback(service.shutdown)
        key = {"username": "prometheus", "password_file": str(folder / "key")}
        jobs: dict[str, dict[str, Any]] = {
            "opskit": {"static_configs": target(port), "basic_auth": key},
            "service": {"static_configs": target(service.server_port)},
        }
        rules = at_once(render(settings))
        running = watching.prometheus(folder, own_port, rules, jobs)
        found = Watched(stack.enter_context(running).url, settings, scheduler)
        until(lambda: is_scraping(found))
        yield found


def is_scraping(prometheus: Prometheus) -> bool:
    """Tell whether Prometheus runs and has samples from which rates can be told."""
    some = ("opskit_ledger_intact", 'http_requests_total{status="200"}')
    try:
        return all(prometheus.values(f"count_over_time({e}[1m]) > 5") for e in some)
    except OSError:
        return False


def test_every_target_is_up(prometheus: Watched) -> None:
    """Prometheus reads the metrics of opskit, with the key; nobody does without."""

    def health() -> list[str]:
        return [each["health"] for each in prometheus.get("targets")["activeTargets"]]

    until(lambda: health() == ["up", "up"])

    listen = prometheus.settings.scheduler.listen
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(f"http://{listen}/metrics", timeout=30)
    refused.value.close()


def test_a_stale_backup_raises_its_alert(prometheus: Watched) -> None:
    """It names the source and the store; a source with more patience raises none."""
    (alert,) = until(lambda: prometheus.firing().get("OpskitBackupStale"))

    labels, texts = alert["labels"], alert["annotations"]
    assert (labels["source"], labels["store"], labels["severity"]) == (
        "hasty",
        "near",
        "critical",
    )
    assert texts["summary"] == "No fresh backup of hasty in near"
    assert re.search(r"of hasty in the store near is .*\ds old", texts["description"])
    assert texts["runbook_url"] == "https://git.example/runbooks/backup-failing.md"


def test_a_scheduler_that_ended_is_noticed(prometheus: Watched) -> None:
    """Its metrics are gone with it: that is an alert for each source, until it is back."""
    prometheus.scheduler.stop()

    absent = until(lambda: prometheus.firing().get("OpskitAbsent"))
    summaries = {each["annotations"]["summary"] for each in absent}
    assert summaries == {"Nothing reports on hasty", "Nothing reports on patient"}

    prometheus.scheduler.start()
    until(lambda: "OpskitAbsent" not in prometheus.firing())


def test_a_service_that_misses_its_objectives_raises_alerts(
    prometheus: Watched,
) -> None:
    """Two percent fail, and ten are slow; none is slower than p99 may be."""
    expected = {
        "ServiceAvailabilityFastBurn",
        "ServiceAvailabilitySlowBurn",
        "ServiceErrorRateSlowBurn",
        "ServiceLatencyP95SlowBurn",
    }

    until(
        lambda: {e for e in prometheus.firing() if e.startswith("Service")} == expected
    )
    for name in expected:
        assert [each["labels"]["job"] for each in prometheus.firing()[name]] == [
            "service"
        ]


def test_no_other_alert_fires_and_every_rule_is_well(prometheus: Watched) -> None:
    """Prometheus evaluates every rule without an error."""
    rules = [
        rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]
    ]

    assert {rule["name"] for rule in rules} == {*alerts(prometheus.settings)}
    assert {
        rule["name"]: rule.get("lastError") for rule in rules if rule.get("lastError")
    } == {}
    lasting = {"OpskitBackupStale", "OpskitUnhealthy", "OpskitDiskFilling"}
    # A scrape that takes longer than a second fails, and an alert with it, for a moment.
    until(lambda: {e for e in prometheus.firing() if e.startswith("Opskit")} <= lasting)


@pytest.mark.parametrize("name", ["opskit", "service"])
def test_every_graph_of_a_dashboard_has_data(prometheus: Watched, name: str) -> None:
    """Each query of each panel gives numbers."""
    dashboard = (
        dashboards.opskit()
        if name == "opskit"
        else dashboards.service(prometheus.settings.slo)
    )
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel["targets"]
    ]

    assert queries
    until(lambda: [each for each in queries if not prometheus.values(each)] == [])


def test_the_queries_of_a_runbook_are_answered(prometheus: Watched) -> None:
    """Whoever is called at night copies them as they stand."""
    (script,) = (
        step.command
        for step in read(ROOT / "runbooks" / "bad-release.md").steps
        if "promtool" in step.command
    )
    queries = script.replace("\\\n", "").splitlines()

    assert len(queries) == 2
    for query in queries:
        *command, _address, expr = shlex.split(query)
        said = stock.run(*command, prometheus.url, expr)
        assert b"=>" in said, query


def test_the_figures_of_a_report_are_those_of_the_service(
    prometheus: Watched,
) -> None:
    """Shares and percentiles are what the service counted, of the time since it began."""
    now = datetime.now(UTC)

    figures = checks(prometheus.settings.slo, start=now - timedelta(days=7), end=now)

    found = {each.name: each for each in figures}
    values = {name: float(each.observed.split()[0]) for name, each in found.items()}
    assert values["availability"] == pytest.approx(98, abs=0.1)
    assert values["error budget left"] == pytest.approx(100 - 2 / 0.001, abs=100)
    assert values["error rate"] == pytest.approx(2, abs=0.1)
    assert values["refused"] == pytest.approx(3, abs=0.1)
    assert 0.75 < values["p95"] < 1
    assert 0.75 < values["p99"] < 1
    assert {name for name, each in found.items() if each.passed} == {"refused", "p99"}
    since = re.search(r"\(since (.*) UTC\)", found["p95"].observed)
    assert since
    # The subquery looks every twenty minutes.
    first = datetime.strptime(since[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    assert first > now - timedelta(hours=1)


def test_a_period_without_requests_is_said(prometheus: Watched) -> None:
    """Nothing measured is not nothing failed."""
    end = datetime.now(UTC) - timedelta(days=30)

    (found,) = checks(prometheus.settings.slo, start=end - timedelta(days=7), end=end)

    assert found.passed is None
    assert "no requests" in found.observed


def test_a_report_holds_the_figures(prometheus: Watched) -> None:
    """The objectives of the service stand beside those of backups and drills."""
    outcome = report(begin(prometheus.settings), ReportRequest(period="week"))

    assert outcome.result is not None
    service = {each["name"]: each for each in outcome.result.facts["service"]}
    assert service["availability"]["passed"] is False
    assert service["availability"]["expected"] == "at least 99.9 %"
    assert service["availability"]["observed"].startswith("98 % (since ")
    assert service["p99"]["passed"] is True
    assert "| availability | at least 99.9 % |" in outcome.result.report.read_text()
