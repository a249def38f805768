"""The notifier: receivers on real servers, and what the ledger says of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from opskit import log
from opskit.errors import BackupFailed, ConfigurationError, StoreError
from opskit.ledger import LedgerEntry
from opskit.operations.recording import RunLedger
from opskit.operations.run import Run, begin
from opskit.scheduler.journal import Journal
from opskit.scheduler.timetable import Missed
from opskit.watch import deliveries, runs
from opskit.watch.notify import examine
from opskit.watch.receivers import last_notified
from tests.receivers import Receiver, away, receiver
from tests.unit.conftest import LoadConfig
from tests.unit.scheduled import moment, timetable

CANARY = "hunter2-of-the-receiver"
MakeRun = Callable[[str], Run]
(JOB,) = timetable("0 9 * * *")
NINE = moment("2026-03-10T09:00")
MISSED = Missed(first=NINE, last=NINE, number=1)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "_PAUSES_SECONDS", (0.0, 0.0))


@pytest.fixture
def one() -> Iterator[Receiver]:
    """A receiver."""
    with receiver() as made:
        yield made


@pytest.fixture
def make_run(load_config: LoadConfig, tmp_path: Path) -> MakeRun:
    """Return a function that begins a run with a section of the configuration."""
    (tmp_path / "store").mkdir()
    url = (tmp_path / "store").as_uri()

    def make_run(section: str) -> Run:
        text = f'[files.shop]\npath = "/tmp"\n[stores.local]\nurl = "{url}"\n'
        return runs.observed(begin(load_config(text + section)))

    return make_run


def _backup(run: Run, *errors: Exception, operation: str = "backup") -> None:
    """Do a backup that ends with the first of the errors, or well."""
    with run.recorded(operation, "shop") as record:
        record.begin(source="shop")
        if errors:
            raise errors[0]


def _notified(run: Run) -> list[LedgerEntry]:
    return [each for each in run.ledger.entries() if each.operation == "notify"]


def test_a_person_reads_what_failed_and_when_it_works_again(
    make_run: MakeRun, one: Receiver
) -> None:
    """Each in one message, whatever is repeated in between."""
    run = make_run(f'[notify]\nurls = ["{one.url.replace("http", "json")}/"]')
    fault = BackupFailed("no space", said="Key (iban)=(DE02)", hint="Free some.")
    for errors in ([], [fault], [fault], [], []):
        _backup(run, *errors)

    first, second = (json.loads(each.body) for each in one.requests)
    assert first["title"] == "opskit: backup of shop failed"
    assert first["type"] == "failure"
    assert first["message"].startswith("error: no space\nhint: Free some.\n")
    assert run.run_id in first["message"]
    assert second["title"] == "opskit: backup of shop works again"
    assert second["type"] == "success"
    assert "iban" not in str(one.requests)
    assert _notified(run) == []


def test_a_backup_that_shrank_is_reported_once(
    make_run: MakeRun, one: Receiver
) -> None:
    """It succeeded, and somebody should look at it."""
    run = make_run(f'[notify]\nurls = ["{one.url.replace("http", "json")}/"]')
    with run.recorded("backup", "shop") as record:
        record.begin(source="shop")
        record.details["sudden_changes"] = ["table a.b is gone"]
    _backup(run)

    (got,) = (json.loads(each.body) for each in one.requests)
    assert got["title"] == "opskit: backup of shop looks wrong"
    assert got["type"] == "warning"
    assert got["message"].startswith("table a.b is gone\nhost: ")


def test_a_missed_run_is_reported_like_a_failure(
    make_run: MakeRun, one: Receiver
) -> None:
    """Nothing ran; the daemon says so."""
    run = make_run(f'[notify]\nurls = ["{one.url.replace("http", "json")}/"]')
    journal = Journal(run)
    for _ in range(2):
        journal.missed(JOB, MISSED)
        journal.close(time.monotonic() + 60)

    (got,) = (json.loads(each.body) for each in one.requests)
    assert got["title"] == "opskit: backup of shop did not run"
    assert "due at 2026-03-10 09:00 UTC" in got["message"]


def test_an_event_does_not_wait_for_its_receivers(make_run: MakeRun) -> None:
    """The next job starts while a receiver is silent."""
    with receiver([0]) as silent:
        run = make_run(f'[notify.heartbeats]\nshop = "{silent.url}"')
        journal = Journal(run)
        journal.missed(JOB, MISSED)

        (report,) = journal._threads
        assert report.is_alive()
        assert [each.outcome for each in run.ledger.entries()] == ["missed"]
    journal.close(time.monotonic() + 60)
    assert not report.is_alive()


def test_a_heartbeat_is_pinged_at_start_success_and_failure(
    make_run: MakeRun, one: Receiver
) -> None:
    """In the form of healthchecks.io: the id of the run is the end of a UUID."""
    run = make_run(f'[notify.heartbeats]\nshop = "{one.url}/ping/4-2?create=1"')
    _backup(run)
    _backup(run, BackupFailed("no"))
    _backup(run, operation="restore-drill")
    _backup(run, operation="prune")

    assert one.paths() == [
        "/ping/4-2/start", "/ping/4-2", "/ping/4-2/start", "/ping/4-2/fail",
    ]  # fmt: skip
    for each in one.requests:
        query = parse_qs(urlsplit(each.path).query)
        assert query["create"] == ["1"]
        assert query["rid"] == [f"00000000-0000-0000-0000-{run.run_id}"]


@pytest.mark.parametrize("is_scheduled", [True, False])
def test_what_a_scheduler_interrupts_is_no_failure_for_a_heartbeat(
    is_scheduled: bool,
    make_run: MakeRun,
    one: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When it is started again, it makes up for the runs that it has ended."""
    if is_scheduled:
        monkeypatch.setenv("OPSKIT_SCHEDULED", "1")
    run = make_run(f'[notify.heartbeats]\nshop = "{one.url}"')
    with suppress(KeyboardInterrupt), run.recorded("backup", "shop") as record:
        record.begin(source="shop")
        raise KeyboardInterrupt

    assert one.paths() == (["/start"] if is_scheduled else ["/start", "/fail"])


def test_drills_have_heartbeats_of_their_own(make_run: MakeRun, one: Receiver) -> None:
    """A store that failed to take the evidence makes it no success."""
    run = make_run(f'[notify.drill_heartbeats]\nshop = "{one.url}/drills"')
    _backup(run)
    with run.recorded("restore-drill", "shop") as record:
        record.begin(source="shop")
        record.report(StoreError("offsite is away"))

    assert one.paths() == ["/drills/start", "/drills/fail"]


def test_a_receiver_that_fails_is_on_record_and_changes_nothing(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every failure is recorded, and the first success after one."""
    with receiver([500] * 6 + [200]) as one:
        run = make_run(f'[notify.heartbeats]\nshop = "{one.url}/{CANARY}"')
        for _ in range(4):
            with run.recorded("backup", "shop") as record:
                record.begin(source="shop")
            assert record.outcome.exit_code == 0

    about = [(e.outcome, e.details.get("error")) for e in _notified(run)]
    failed = ("failed", "it answered 500")
    # /start is tried once, the end three times.
    assert about == [failed, failed, failed, ("ok", None)]
    assert {e.details["receiver"] for e in _notified(run)} == {"heartbeat shop"}
    assert {e.details["about"] for e in _notified(run)} == {"backup of shop"}
    shown = capsys.readouterr()
    assert "a receiver was not reached" in shown.err


def test_a_message_that_was_not_delivered_is_sent_by_the_next_run(
    make_run: MakeRun, one: Receiver
) -> None:
    """To the service that was not reached, and to no other."""
    with receiver([500] * 3 + [200]) as down:
        urls = [each.url.replace("http", "json") for each in (one, down)]
        run = make_run(f"[notify]\nurls = {urls}")
        for _ in range(3):
            _backup(run, BackupFailed("no space"))

    assert len(down.requests) == 4  # three for the first message, one for the second
    assert len(one.requests) == 1
    assert [each.outcome for each in _notified(run)] == ["failed", "ok"]


def test_a_recovery_that_was_not_delivered_is_sent_by_the_next_run(
    make_run: MakeRun,
) -> None:
    """Else people look for a fault that has ended."""
    with receiver([200] + [500] * 3 + [200]) as one:
        run = make_run(f'[notify]\nurls = ["{one.url.replace("http", "json")}"]')
        _backup(run, BackupFailed("no space"))
        for _ in range(3):
            _backup(run)
        titles = [json.loads(each.body)["title"] for each in one.requests]

    works = "opskit: backup of shop works again"
    assert titles == ["opskit: backup of shop failed"] + [works] * 4


def test_a_service_in_place_of_one_that_was_not_reached_gets_the_message(
    make_run: MakeRun, one: Receiver
) -> None:
    """Whoever corrects an address may change what kind of service it is."""
    fault = BackupFailed("no space")
    _backup(make_run(f'[notify]\nurls = ["{away().replace("http", "json")}"]'), fault)
    run = make_run(f'[notify]\nurls = ["{one.url.replace("http", "xml")}"]')
    _backup(run, fault)

    assert len(one.requests) == 1


def test_the_ledger_is_read_once_for_each_message(
    make_run: MakeRun, one: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grows for years."""
    url = one.url.replace("http", "json")
    run = make_run(f'[notify]\nurls = ["{url}"]\nheartbeats.shop = "{one.url}"')
    reads: list[bool] = []
    readable = RunLedger.readable

    def counted(ledger: RunLedger) -> tuple[list[LedgerEntry], list[str]]:
        reads.append(True)
        return readable(ledger)

    monkeypatch.setattr(RunLedger, "readable", counted)
    _backup(run, BackupFailed("no"))

    assert len(one.requests) == 3  # at the start, at the end, to people
    assert len(reads) == 2


def test_a_service_that_took_a_part_has_failed(
    make_run: MakeRun, one: Receiver
) -> None:
    """Only full success is one: an address may stand for several services."""
    both = f"{one.url}, {away()}".replace("http", "json")
    run = make_run(f'[notify]\nurls = ["{both}"]')
    _backup(run, BackupFailed("no"))

    assert len(one.requests) == 1
    (entry,) = _notified(run)
    assert entry.details["error"] == "apprise answers PARTIAL"


def test_a_receiver_that_is_removed_is_not_failing_any_more(
    make_run: MakeRun,
) -> None:
    """Health looks at those that are configured; the ledger keeps the record."""
    run = make_run(f'[notify.heartbeats]\nshop = "{away()}"')
    _backup(run)
    without = make_run("")

    (name,) = last_notified(run.ledger.entries(), run.settings.notify)
    assert name == "heartbeat shop"
    assert last_notified(run.ledger.entries(), without.settings.notify) == {}


@pytest.mark.parametrize(
    ("address", "receiver_name"),
    [
        ("json://ops:{canary}@{host}/{canary}", "message 1 (json)"),
        ("nosuch://ops:{canary}@{host}/{canary}", ""),
    ],
)
def test_no_part_of_an_address_is_shown_or_recorded(
    address: str,
    receiver_name: str,
    make_run: MakeRun,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Neither of one that cannot be reached, nor of one that matches no service."""
    url = address.format(canary=CANARY, host=away().removeprefix("http://"))
    section = f'[notify]\nurls = ["{url}"]'
    if receiver_name:
        run = make_run(section)
        _backup(run, BackupFailed("no"))
        assert [e.details["receiver"] for e in _notified(run)] == [receiver_name]
        assert (
            "apprise answers FAILURE" in (tmp_path / ".opskit/ledger.jsonl").read_text()
        )
    else:
        with pytest.raises(ConfigurationError, match=r"message 1 \(nosuch\)") as got:
            make_run(section)
        assert got.value.exit_code == 2
        assert CANARY not in str(got.value)

    shown = capfd.readouterr()
    assert CANARY not in shown.out + shown.err
    places = [
        each
        for each in tmp_path.rglob("*")
        if each.is_file() and CANARY in each.read_text()
    ]
    assert [each.name for each in places] == ["opskit.toml"]


def test_a_broken_ledger_does_not_prevent_messages(
    make_run: MakeRun, one: Receiver
) -> None:
    """Without its history, a fault is a new one."""
    run = make_run(f'[notify]\nurls = ["{one.url.replace("http", "json")}/"]')
    _backup(run)
    (run.state_dir / "ledger.jsonl").write_text("{}\n")
    _backup(run, BackupFailed("no"))

    assert len(one.requests) == 1


def test_an_unexpected_error_is_reported_without_its_message(
    make_run: MakeRun, one: Receiver
) -> None:
    """They may hold anything."""
    run = make_run(f'[notify]\nurls = ["{one.url.replace("http", "json")}/"]')
    with pytest.raises(KeyError):
        _backup(run, KeyError("DE02 1203"))

    (got,) = (json.loads(each.body) for each in one.requests)
    assert "error: unexpected error: KeyError" in got["message"]
    assert "1203" not in str(one.requests)


def test_a_webhook_without_its_secret_is_a_failed_delivery(
    make_run: MakeRun, one: Receiver, tmp_path: Path
) -> None:
    """The backup goes on."""
    path = tmp_path / "missing"
    run = make_run(f'[[notify.webhooks]]\nurl = "{one.url}"\nsecret_file = "{path}"')
    _backup(run)

    (entry,) = _notified(run)
    assert entry.details["receiver"] == "webhook 1"
    assert "does not exist" in str(entry.details["error"])
    assert one.requests == []


def test_a_webhook_gets_every_operation(
    make_run: MakeRun, one: Receiver, tmp_path: Path
) -> None:
    """With the alert that people got, where they got one."""
    path = tmp_path / "secret"
    path.write_text("s3cret-of-the-hook\n")
    path.chmod(0o600)
    run = make_run(f'[[notify.webhooks]]\nurl = "{one.url}"\nsecret_file = "{path}"')
    log.hide("s3cret-of-the-hook")
    _backup(run)
    _backup(run, BackupFailed("no s3cret-of-the-hook"))
    _backup(run)

    events = [json.loads(each.body) for each in one.requests]
    assert [each["type"] for each in events] == [
        "backup.ok", "backup.failed", "backup.ok",
    ]  # fmt: skip
    assert [each["data"]["alert"] for each in events] == [None, "failed", "recovered"]
    assert events[1]["data"]["error"] == "no ***"
    assert events[1]["data"]["code"] == 40
    assert {each["data"]["source"] for each in events} == {"shop"}
    assert {each["data"]["run_id"] for each in events} == {run.run_id}


def test_a_test_message_reaches_every_receiver_but_no_heartbeat(
    make_run: MakeRun, one: Receiver, tmp_path: Path
) -> None:
    """A request to a heartbeat would count as a run."""
    path = tmp_path / "secret"
    path.write_text("s3cret")
    path.chmod(0o600)
    host = one.url.replace("http", "json")
    run = make_run(
        f'[notify]\nurls = ["{host}/people", "{away().replace("http", "json")}/"]\n'
        f'heartbeats = {{ shop = "{one.url}/ping" }}\n'
        f'[[notify.webhooks]]\nurl = "{one.url}/hook"\nsecret_file = "{path}"\n'
        '[hooks]\nafter = [["true"], ["no-such-program"]]'
    )
    quiet = list(examine(run, send=False))
    assert one.requests == []
    checks = list(examine(run, send=True))

    assert sorted(one.paths()) == ["/hook", "/people"]
    assert [each.name for each in quiet] == [
        "hook true", "hook no-such-program", "secret of webhook 1",
    ]  # fmt: skip
    assert {each.name: each.passed for each in checks} == {
        "hook true": True,
        "hook no-such-program": False,
        "secret of webhook 1": True,
        "notification message 1 (json)": True,
        "notification message 2 (json)": False,
        "notification webhook 1": True,
    }
    assert [e.details["receiver"] for e in _notified(run)] == ["message 2 (json)"]


def test_a_heartbeat_of_no_source_is_refused(make_run: MakeRun) -> None:
    """A name that is misspelt would never be pinged."""
    with pytest.raises(ConfigurationError, match="heartbeats names shpo"):
        make_run('[notify.heartbeats]\nshpo = "https://hc.example/ping"')


@pytest.mark.parametrize(
    "section",
    [
        f'[notify]\nurls = "slack://{CANARY}/B/C"',
        f'[notify]\nurls = [{{ x = "slack://{CANARY}/B/C" }}]',
        f'[notify.heartbeats]\nshop = "hc.example/{CANARY}"',
        f'[notify.heartbeats]\nshop = ["https://hc.example/{CANARY}"]',
        f'[notify]\nsentry_dsn = ["https://{CANARY}@example.org/1"]',
        f'[[notify.webhooks]]\nurl = "example.org/{CANARY}"\nsecret_file = "x"',
    ],
)
def test_a_value_of_the_wrong_form_is_refused_without_being_shown(
    section: str, make_run: MakeRun
) -> None:
    """The key is named; an address is a secret."""
    with pytest.raises(ConfigurationError, match="notify") as raised:
        make_run(section)

    assert CANARY not in str(raised.value)
