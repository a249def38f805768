"""`smoke` with input that is wrong, and against services that answer badly."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import threading
from pathlib import Path

import pytest

from opskit.ledger import Ledger
from tests.certificates import self_signed
from tests.listening import Respond, answer, listening, run, start

CANARY = "canary-of-a-password"
LIMITS = '[smoke]\ndeadline = "1s"\ntimeout = "1s"\nconnections = 2\n'
# Where each answer comes, however busy the host is.
PATIENT = LIMITS.replace('timeout = "1s"', 'timeout = "2m"')
# Where some answers never come, and others are asked for again if they were slow.
PERSISTENT = LIMITS.replace('deadline = "1s"', 'deadline = "20s"')
# Deadline, one answer after it, three rounds more, and a host that is busy: without a
# limit the run would last for ever.
_SECONDS_MAX = 180
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "ftp://127.0.0.1",
        "http://",
        "http://[::1",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        f"http://user:{CANARY}",
        f"http://user:{CANARY}@127.0.0.1",
        f"http://127.0.0.1/?key={CANARY}",
    ],
)
def test_a_wrong_address_is_refused(tmp_path: Path, url: str) -> None:
    """The command says what is wrong with it, and repeats no password."""
    ended = run(tmp_path, LIMITS, *(["--url", url] if url else []))

    assert ended.code == 2, ended.errors
    assert ended.errors.startswith("error: ")
    assert "hint: " in ended.errors
    _require_clean(tmp_path, ended.output + ended.errors)


def test_a_password_in_the_configured_address_is_masked(tmp_path: Path) -> None:
    """The settings are refused without it."""
    ended = run(tmp_path, f'{LIMITS}url = "http://user:{CANARY}@127.0.0.1"\n')

    assert ended.code == 2
    assert "smoke.url" in ended.errors
    _require_clean(tmp_path, ended.output + ended.errors)


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (None, 0o600, "does not exist"),
        (CANARY, 0o644, "may be read by others"),
        ("\n", 0o600, "is empty"),
        (f"{CANARY}\n{CANARY}", 0o600, "holds what no header may carry"),
        (f"{CANARY}\0", 0o600, "holds what no header may carry"),
    ],
)
def test_a_wrong_key_file_is_refused(
    tmp_path: Path, content: str | None, mode: int, words: str
) -> None:
    """Before anything is sent, and without a word of what it holds."""
    key = tmp_path / "reader.key"
    if content is not None:
        key.write_text(content)
        key.chmod(mode)
    configuration = f'{LIMITS}[smoke.keys.reader]\nfile = "{key}"\n'
    ended = run(tmp_path, configuration, "--url", "http://127.0.0.1:9")

    assert ended.code == 2
    assert words in ended.errors
    key.unlink(missing_ok=True)
    _require_clean(tmp_path, ended.output + ended.errors)


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ('advisory = ["hedders"]', "smoke.advisory: there is no probe hedders"),
        ('baseline = "known.toml"', "smoke.baseline known.toml cannot be read"),
        ("[smoke.headers]\nframes = 3", "smoke.headers.frames"),
    ],
)
def test_a_wrong_configuration_is_refused(
    tmp_path: Path, configuration: str, words: str
) -> None:
    """The one document says what is wrong, and so does standard error."""
    text = f'{LIMITS}url = "http://127.0.0.1:9"\n{configuration}\n'
    ended = run(tmp_path, text, "--json")
    document = json.loads(ended.output)

    assert ended.code == 2
    assert document["status"] == "error"
    assert document["code"] == 2
    assert words in document["error"]
    assert document["hint"]
    assert f"error: {document['error']}\nhint: {document['hint']}\n" == ended.errors


def _require_clean(folder: Path, shown: str) -> None:
    (folder / "opskit.toml").unlink()
    written = [each.read_text() for each in folder.rglob("*") if each.is_file()]
    for text in (shown, *written):
        assert CANARY not in text
        assert "Traceback" not in text


def _html(connection: socket.socket, _head: bytes, _ended: threading.Event) -> None:
    connection.sendall(answer(b"<html>hello</html>"))


def _nested(connection: socket.socket, _head: bytes, _ended: threading.Event) -> None:
    connection.sendall(answer(b"[" * 200_000))


def _redirect(connection: socket.socket, _head: bytes, _ended: threading.Event) -> None:
    connection.sendall(answer(b"", status=302, headers="Location: /health\r\n"))


def _endless(connection: socket.socket, _head: bytes, ended: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not ended.is_set():
        connection.sendall(b"x" * 65536)


def _many_headers(
    connection: socket.socket, _head: bytes, _ended: threading.Event
) -> None:
    lines = "".join(f"X-{number}: a\r\n" for number in range(100_000))
    connection.sendall(answer(b"{}", headers=lines))


def _long_header(
    connection: socket.socket, _head: bytes, _ended: threading.Event
) -> None:
    connection.sendall(answer(b"{}", headers=f"X-Long: {'a' * 1_000_000}\r\n"))


def _slow_body(connection: socket.socket, _head: bytes, ended: threading.Event) -> None:
    connection.sendall(_HEAD)
    while not ended.wait(0.5):
        connection.sendall(b"x")


def _slow_head(connection: socket.socket, _head: bytes, ended: threading.Event) -> None:
    for byte in _HEAD:
        if ended.wait(0.5):
            return
        connection.sendall(bytes([byte]))


@pytest.mark.parametrize(
    ("respond", "reason"),
    [
        (_html, "200 without version in JSON"),
        (_nested, "200 without version in JSON"),
        (_endless, "200 without version in JSON"),
        (_redirect, "302 without version in JSON"),
        (_many_headers, "the answer is not HTTP"),
        (_long_header, "the answer is not HTTP"),
        (_slow_body, "no answer in 1 s"),
        (_slow_head, "no answer in 1 s"),
    ],
)
def test_a_service_that_answers_badly(
    tmp_path: Path, respond: Respond, reason: str
) -> None:
    """It could not be asked for its version: inconclusive, and within the time."""
    with listening(respond) as address:
        limits = LIMITS if "no answer in" in reason else PATIENT
        ended = run(tmp_path, limits, "--json", "--url", f"http://{address}")

    _require_inconclusive(ended.output, ended.errors, reason)
    assert ended.code == 61
    assert ended.seconds < _SECONDS_MAX


def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    """Nobody listens: inconclusive."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        ended = run(tmp_path, PATIENT, "--json", "--url", url)

    _require_inconclusive(ended.output, ended.errors, "no connection")
    assert ended.code == 61


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    """The version cannot be asked for: inconclusive, where TLS itself is not probed."""
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with listening(_html, context) as address:
        url = f"https://{address}"
        ended = run(tmp_path, PATIENT, "--json", "--profile", "minimal", "--url", url)

    _require_inconclusive(ended.output, ended.errors, "the certificate is not trusted")
    assert ended.code == 61


def _require_inconclusive(output: str, errors: str, reason: str) -> None:
    assert output, errors
    document = json.loads(output)
    version = document["checks"][0]
    assert document["status"] == "inconclusive"
    assert version["name"] == "version"
    assert reason in version["detail"]
    assert "Traceback" not in errors


@pytest.mark.parametrize("respond", [_slow_body, _long_header, _nested])
def test_only_the_version_is_answered_well(tmp_path: Path, respond: Respond) -> None:
    """What else is asked gets bad answers: the run ends within the time, with 61."""

    def but_for_the_version(
        connection: socket.socket, head: bytes, ended: threading.Event
    ) -> None:
        if head.startswith(b"GET /health "):
            connection.sendall(answer(b'{"version": "1"}'))
        else:
            respond(connection, head, ended)

    limits = PERSISTENT if respond is _slow_body else PATIENT
    with listening(but_for_the_version) as address:
        ended = run(tmp_path, limits, "--json", "--url", f"http://{address}")

    assert json.loads(ended.output)["checks"][0]["passed"] is True
    assert ended.code == 61
    assert ended.seconds < _SECONDS_MAX
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize(
    ("number", "names_version"), [(signal.SIGINT, False), (signal.SIGTERM, True)]
)
def test_an_interrupted_run_ends_soon(
    tmp_path: Path, number: signal.Signals, names_version: bool
) -> None:
    """While the version, or probes, await answers: 130, long before the deadline.

    That is on record; a report of what was not judged is not written.
    """
    asked = threading.Event()

    def silent(connection: socket.socket, head: bytes, ended: threading.Event) -> None:
        if names_version and head.startswith(b"GET /health "):
            connection.sendall(answer(b'{"version": "1"}'))
            return
        asked.set()
        ended.wait(600)

    configuration = '[smoke]\ndeadline = "10m"\ntimeout = "10m"\n'
    (tmp_path / "opskit.toml").write_text(configuration)
    with (
        listening(silent) as address,
        start(
            tmp_path, "--url", f"http://{address}", "--junit", "junit.xml"
        ) as process,
    ):
        try:
            assert asked.wait(60)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()

    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert errors.startswith("error: interrupted\n")
    (record,) = Ledger(tmp_path / "state" / "ledger.jsonl").entries()
    assert (record.operation, record.outcome) == ("smoke", "interrupted")
    assert {each.name for each in tmp_path.iterdir()} == {"opskit.toml", "state"}
