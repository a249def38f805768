"""The local deployer with real processes: what runs afterwards, and what is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from opskit.config import Settings
from opskit.config.release import LocalSettings
from opskit.config.smoke import SmokeSettings
from opskit.errors import DeployFailed, ReleaseRefused
from opskit.operations.release import start
from opskit.operations.run import Run
from opskit.release import processes
from opskit.release.local import Local
from opskit.release.processes import Process
from tests.ports import free_port

# What a version of the service does before it answers.
KINDS = {
    "good": "",
    "dies": "print('no such table'); sys.exit(3)",
    "hangs": "time.sleep(600)",
    "stubborn": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "finishes": """
def finish(*_):
    time.sleep(0.5)
    print("finished what it did", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, finish)
""",
    "lies": "version = 'another'",
    "forks": "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])",
}
SERVICE = """
import http.server, json, os, signal, subprocess, sys, time
version = os.environ["OPSKIT_VERSION"]
{before}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({{"version": version, "environment": sorted(os.environ)}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""
SECONDS = 60


@dataclass
class Service:
    """A folder of releases, and what runs of them."""

    folder: Path
    port: int

    @property
    def smoke(self) -> dict[str, object]:
        url = f"http://127.0.0.1:{self.port}"
        return {"url": url, "connections": 2, "timeout": f"{SECONDS}s"}

    @property
    def local(self) -> dict[str, object]:
        return {"folder": str(self.folder), "start": [sys.executable, "serve.py"]}

    def deployer(self, *, timeout: str = f"{SECONDS}s", **changes: object) -> Local:
        """Return the deployer of one run; each run has its own."""
        settings = LocalSettings.model_validate(self.local | changes)
        smoke = SmokeSettings.model_validate(self.smoke | {"timeout": timeout})
        return Local(settings, smoke, Path("/"))

    def add(self, version: str, kind: str = "good") -> None:
        folder = self.folder / "releases" / version
        folder.mkdir(parents=True, exist_ok=True)
        text = SERVICE.format(before=KINDS[kind], port=self.port)
        (folder / "serve.py").write_text(textwrap.dedent(text))

    def answer(self) -> dict[str, object]:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/health", timeout=SECONDS
        ) as answer:
            return dict(json.load(answer))

    @property
    def running(self) -> dict[str, int]:
        """The processes that run, by their versions."""
        found = {
            each.name: processes.read(each)
            for each in (self.folder / "processes").iterdir()
        }
        return {n: each.number for n, each in found.items() if each and each.is_alive}

    @property
    def log(self) -> str:
        return (self.folder / "service.log").read_text()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with the version 1 running."""
    made = Service(tmp_path, free_port())
    made.add("1")
    try:
        made.deployer().deploy("1")
        yield made
    finally:
        for record in (tmp_path / "processes").iterdir():
            record.write_text(
                record.read_text().replace("elsewhere", os.uname().nodename)
            )
            if process := processes.read(record):
                process.stop(0)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def test_a_version_takes_the_place_of_another(service: Service) -> None:
    """Nothing of the one before runs on, its session is its own, its log is kept."""
    service.add("2")
    before = service.running["1"]

    deployment = service.deployer().deploy("2")

    assert service.answer()["version"] == "2"
    assert list(service.running) == ["2"]
    number = service.running["2"]
    assert deployment == f"2@{number}"
    assert os.getsid(number) == number != os.getsid(0)
    assert not Path(f"/proc/{before}").exists()
    assert service.deployer().current() == "2"
    assert '"GET /health' in service.log


@pytest.mark.parametrize(
    ("kind", "words"),
    [("dies", "has ended: no such table"), ("hangs", "did not name"), ("lies", "did not name")],
)  # fmt: skip
def test_what_does_not_name_its_version_has_failed(
    service: Service, kind: str, words: str
) -> None:
    """And does not run on; the version before is still the current one."""
    service.add("2", kind)

    with pytest.raises(DeployFailed) as caught:
        service.deployer(deadline="1s" if kind != "dies" else "1m").deploy("2")

    assert words in str(caught.value)
    assert "service.log" in caught.value.hint
    assert service.running == {}
    assert service.deployer().current() == "1"
    service.deployer().deploy("1")
    assert service.answer()["version"] == "1"


def test_what_does_not_end_is_killed_with_what_it_started(service: Service) -> None:
    """A worker that holds the port would keep the next version from starting."""
    service.add("2", "forks")
    service.deployer().deploy("2")
    leader = service.running["2"]
    session = [each for each in processes_of(leader) if each != leader]
    assert session

    service.add("3", "stubborn")
    service.deployer().deploy("3")
    assert not processes_of(leader)

    stubborn = service.running["3"]
    service.deployer(stop_timeout="1s").deploy("1")
    assert not processes_of(stubborn)
    assert service.answer()["version"] == "1"


def test_what_a_script_has_started_has_its_time_to_end(service: Service) -> None:
    """A shell does not pass a signal on, and ends before its child does."""
    service.add("2", "finishes")
    script = service.folder / "releases" / "2" / "run.sh"
    script.write_text(f"{sys.executable} serve.py\ntrue\n")
    service.deployer(start=["sh", "run.sh"]).deploy("2")
    leader = service.running["2"]

    service.deployer().deploy("1")

    assert not processes_of(leader)
    assert "finished what it did" in service.log


def processes_of(session: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with suppress(OSError):
                fields = (each / "stat").read_text().rpartition(")")[2].split()
                if fields[3] == str(session) and fields[0] != "Z":
                    found.append(int(each.name))
    return found


DEPLOY = """
import os, signal, sys
from pathlib import Path
from opskit.config.release import LocalSettings
from opskit.config.smoke import SmokeSettings
from opskit.release.local import Local
settings, smoke, version, ending = sys.argv[1:]
class Ended(Local):
    def _names(self, version):
        if ending == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._names(version)
Ended(LocalSettings.model_validate_json(settings),
      SmokeSettings.model_validate_json(smoke), Path("/")).deploy(version)
if ending == "hung up":
    os.killpg(os.getpgid(0), signal.SIGHUP)
"""


@pytest.mark.parametrize("ending", ["hung up", "killed"])
def test_the_process_outlives_the_run_that_started_it(
    service: Service, ending: str
) -> None:
    """Also one that was killed before it had confirmed the version; that is resumed."""
    service.add("2")
    read, inherited = os.pipe()
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            DEPLOY,
            *map(json.dumps, (service.local, service.smoke)),
            "2",
            ending,
        ],
        env=os.environ | {"OPSKIT_STORE_SECRET": "x", "PYTHONPATH": os.getcwd()},
        pass_fds=[inherited],
        start_new_session=True,
        timeout=SECONDS,
        check=False,
    )
    os.close(inherited)
    os.set_blocking(read, False)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"", "the process holds what its starter had open"
    assert ended.returncode == -(1 if ending == "hung up" else 9)

    wait_until(lambda: list(service.running) == ["2"])
    wait_until(lambda: service.deployer()._names("2"))
    first = service.running["2"]
    names = service.answer()["environment"]
    assert "OPSKIT_STORE_SECRET" not in names  # type: ignore[operator]
    assert service.deployer().current() == ("2" if ending == "hung up" else "1")

    service.deployer().deploy("2")
    assert not processes_of(first)
    assert service.running["2"] != first


def test_a_number_that_another_program_has_by_now_is_not_stopped(
    service: Service,
) -> None:
    """The record is of a process that has ended; its number was given to another."""
    record = service.folder / "processes" / "1"
    began = processes.read(record)
    assert began is not None
    began.stop(SECONDS)
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as other:
        try:
            text = record.read_text()
            record.write_text(text.replace(f"\n{began.number} ", f"\n{other.pid} "))
            assert processes.read(record) is not None

            service.add("2")
            service.deployer().deploy("2")

            assert other.poll() is None
        finally:
            other.kill()


def test_a_number_that_a_thread_has_by_now_is_not_stopped(service: Service) -> None:
    """Threads of other programs have numbers out of the same row."""
    record = service.folder / "processes" / "1"
    began = processes.read(record)
    assert began is not None
    began.stop(SECONDS)
    is_done = threading.Event()
    thread = threading.Thread(target=is_done.wait, args=(SECONDS,))
    thread.start()
    try:
        text = record.read_text()
        other = f"\n{thread.native_id} "
        record.write_text(text.replace(f"\n{began.number} ", other))

        service.deployer().stop()
    finally:
        is_done.set()
        thread.join(SECONDS)
    assert not thread.is_alive()
    assert not record.exists()


def test_workers_without_their_leader_are_stopped(service: Service) -> None:
    """The leader was killed: its number is still that of their session."""
    service.add("2", "forks")
    service.deployer().deploy("2")
    leader = service.running["2"]
    os.kill(leader, signal.SIGKILL)
    wait_until(lambda: not service.running)
    assert processes_of(leader)

    service.deployer().stop()

    assert not processes_of(leader)


@pytest.mark.parametrize("text", ["", "\0\0", "a\nb\nc\n", "no number"])
def test_a_record_that_is_cut_short_is_in_nobodys_way(
    service: Service, text: str
) -> None:
    """Nothing can be said of its process."""
    (service.folder / "processes" / "0").write_text(text)
    service.add("2")

    service.deployer().deploy("2")

    assert list(service.running) == ["2"]


def test_a_record_from_before_a_restart_of_the_machine_is_of_no_process(
    service: Service,
) -> None:
    """The number and even the time may be another program's now."""
    record = service.folder / "processes" / "1"
    process = processes.read(record)
    assert process is not None
    host, _, stat = record.read_text().splitlines()
    (service.folder / "processes" / "0").write_text(f"{host}\nanother boot\n{stat}\n")

    assert processes.read(service.folder / "processes" / "0") is None
    assert process.is_alive


def test_a_process_of_another_host_is_not_taken_for_stopped(service: Service) -> None:
    """The folder may be shared: two versions would run at once."""
    record = service.folder / "processes" / "1"
    text = record.read_text()
    record.write_text(text.replace(os.uname().nodename, "elsewhere"))
    service.add("2")

    with pytest.raises(DeployFailed, match="on the host elsewhere") as caught:
        service.deployer().deploy("2")

    assert str(record) in caught.value.hint
    assert service.answer()["version"] == "1"


@pytest.mark.parametrize("start", [["no-such-program"], ["./not-executable"]])
def test_what_cannot_be_started_has_failed(service: Service, start: list[str]) -> None:
    """With the reason, as the shell says it."""
    (service.folder / "releases" / "1" / "not-executable").write_text("")

    with pytest.raises(DeployFailed, match=r"has ended: .*not") as caught:
        service.deployer(start=start).deploy("1")

    assert "service.log" in caught.value.hint


def test_a_version_without_a_folder_leaves_the_one_before(service: Service) -> None:
    """It is looked for before anything is stopped, and before anything is migrated."""
    before = service.running

    with pytest.raises(ReleaseRefused, match="no release 9"):
        service.deployer().deploy("9")
    with pytest.raises(ReleaseRefused, match="no release 9"):
        service.deployer().require("9")

    assert service.running == before
    service.deployer(prepare=["true"]).require("9")


def test_what_was_not_replaced_is_not_started_again(service: Service) -> None:
    """The new version could not be prepared: the one before runs on, if it answers."""
    before = service.running
    deployer = service.deployer(prepare=["false"])
    with pytest.raises(DeployFailed, match="false ended with 1"):
        deployer.deploy("9")

    assert deployer.return_to("1") == f"1@{before['1']}"
    assert service.running == before

    os.kill(before["1"], signal.SIGSTOP)
    service.deployer(stop_timeout="1s", timeout="2s").return_to("1")
    assert service.running != before
    assert service.answer()["version"] == "1"


def test_what_answers_late_is_not_started_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two answers that come too late are no reason to interrupt a service."""
    before = service.running
    late = iter([False, False])
    real = Local._names
    monkeypatch.setattr(
        Local, "_names", lambda *asked: next(late, True) and real(*asked)
    )

    assert service.deployer().return_to("1") == f"1@{before['1']}"

    assert next(late, None) is None
    assert service.running == before


def test_what_was_told_to_end_is_not_taken_for_running(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run was cut short while the version before still answered."""
    before = service.running["1"]
    with monkeypatch.context() as cut:
        cut.setattr(Process, "_has_left", lambda _: signal.raise_signal(signal.SIGINT))
        cut.setattr(Process, "_signal", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            service.deployer().stop()
    assert not service.deployer().runs()

    service.deployer().return_to("1")

    assert not processes_of(before)
    assert list(service.running) == ["1"]


def run_of(service: Service, **release: object) -> Run:
    return Run(
        Settings.model_validate(
            {
                "state_dir": service.folder / "state",
                "smoke": service.smoke,
                "release": {"deployer": "local", "local": service.local} | release,
            }
        )
    )


def test_a_service_that_ended_is_started_again(service: Service) -> None:
    """After a restart of the machine, or when it has crashed; only then."""
    run = run_of(service)
    before = service.running["1"]

    outcome = start(run)
    assert (outcome.exit_code, outcome.status) == (0, "running")
    assert service.running == {"1": before}
    assert not run.ledger.entries()

    os.kill(before, signal.SIGKILL)
    wait_until(lambda: not service.running)
    outcome = start(run)

    assert (outcome.exit_code, outcome.status) == (0, "started")
    assert outcome.result is not None
    assert outcome.result.as_json() == {"version": "1", "process": service.running["1"]}
    assert service.answer()["version"] == "1"
    (entry,) = run.ledger.entries()
    assert (entry.operation, entry.details["version"]) == ("start", "1")


def test_a_service_that_cannot_be_started_again_does_not_answer(
    service: Service,
) -> None:
    """Somebody has to look at it."""
    process = processes.read(service.folder / "processes" / "1")
    assert process is not None
    process.stop(SECONDS)
    service.add("1", "dies")

    outcome = start(run_of(service))

    assert outcome.exit_code == 61
    assert "no such table" in outcome.errors[0].message
    assert service.running == {}


def test_a_service_is_started_again_although_its_folder_is_gone(
    service: Service,
) -> None:
    """It is made again, as it is for a release."""
    process = processes.read(service.folder / "processes" / "1")
    assert process is not None
    process.stop(SECONDS)
    serve = service.folder / "releases" / "1" / "serve.py"
    kept = service.folder / "serve.py"
    serve.rename(kept)
    serve.parent.rmdir()
    assert start(run_of(service)).exit_code == 62

    prepare = {"prepare": ["cp", str(kept), "."]}
    outcome = start(run_of(service, local=service.local | prepare))

    assert (outcome.exit_code, outcome.status) == (0, "started")
    assert service.answer()["version"] == "1"


def test_only_what_opskit_runs_and_knows_is_started(service: Service) -> None:
    """Another supervisor starts the others."""
    restart = {"folder": str(service.folder), "restart": ["true"]}
    assert start(run_of(service, local=restart)).exit_code == 2
    command = {each: ["true"] for each in ("deploy", "status", "current")}
    assert start(run_of(service, deployer="command", command=command)).exit_code == 2
    (service.folder / "current").unlink()
    assert start(run_of(service)).exit_code == 62
