"""Logs: on standard error, with the run's id, and without a password."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import structlog

from opskit import log
from opskit.threads import Pool, Thread


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    log.want(quiet=False, verbose=False)
    structlog.reset_defaults()


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_json_lines_carry_run_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is one JSON document with the run's id; standard output stays free."""
    log.configure(run_id="abc123", form="json")
    log.logger().info("backup started", tables=3)
    log.logger().warning("a store failed", store="größe")
    first, second = _lines(capsys)

    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "backup started",
        "level": "info",
        "run_id": "abc123",
        "tables": 3,
    }
    assert (second["run_id"], second["store"]) == ("abc123", "größe")


def test_what_is_logged_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """Events and values lose their passwords, known ones and those in URLs."""
    log.configure(run_id="abc123", form="json")
    log.hide("s3cr3t")
    log.logger().error("cannot reach x://a:hunter2@b", words="it said s3cr3t", code=5)
    (line,) = _lines(capsys)

    assert line["event"] == "cannot reach x://a:***@b"
    assert (line["words"], line["code"]) == ("it said ***", 5)


def test_nested_values_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """Lists, dictionaries and errors in a log line lose their passwords too."""
    log.configure(run_id="abc123", form="json")
    log.hide("hunter2")
    log.logger().error("x", words=["hunter2"], error=ValueError("hunter2"))

    assert "hunter2" not in capsys.readouterr().err


def test_a_new_run_takes_the_place_of_the_old(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Configuring again changes the id and forgets the secrets of the run before."""
    log.configure(run_id="one", form="json")
    log.hide("s3cr3t")
    log.configure(run_id="two", form="json")
    log.logger().info("s3cr3t")
    (line,) = _lines(capsys)

    assert (line["run_id"], line["event"]) == ("two", "s3cr3t")


def test_runs_at_once_have_each_their_own_id_secrets_and_form(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also in the threads that a run starts, and whatever these make secret."""
    at_once = Barrier(2)

    def run(name: str, form: Any) -> str:
        log.configure(run_id=name, form=form)
        Thread(log.hide, f"of-{name}", name="x").join()
        at_once.wait(60)
        with Pool(1) as pool:
            pool.submit(log.logger().warning, "of-one of-two").result()
        return log.mask("of-one of-two") + log.run_id()

    with ThreadPoolExecutor(2) as runs:
        shown = list(runs.map(run, ["one", "two"], ["json", "console"]))
    written = capsys.readouterr().err.splitlines()
    (of_one,) = (json.loads(line) for line in written if line[0] == "{")

    assert shown == ["*** of-twoone", "of-one ***two"]
    assert (of_one["event"], of_one["run_id"]) == ("*** of-two", "one")
    assert "warning: of-one ***" in written


@pytest.mark.parametrize(("form", "is_json"), [("auto", True), ("console", False)])
def test_off_a_terminal_auto_means_json(
    capsys: pytest.CaptureFixture[str], form: Any, is_json: bool
) -> None:
    """Without a terminal `auto` writes for programs, `console` still for people."""
    log.configure(run_id="abc123", form=form)
    log.logger().warning("a store cannot be reached", store="offsite", reason="gone")
    written = capsys.readouterr().err

    assert written.startswith("{") == is_json
    assert "a store cannot be reached" in written
    assert ("abc123" in written) == is_json
    if not is_json:
        assert written == "warning: a store cannot be reached: gone (store offsite)\n"


@pytest.mark.parametrize(
    ("wanted", "form", "written"),
    [
        ({}, "auto", ["warning", "error"]),
        ({}, "console", ["warning", "error"]),
        ({}, "json", ["info", "warning", "error"]),
        ({"quiet": True}, "json", ["error"]),
        ({"quiet": True}, "console", ["error"]),
        ({"verbose": True}, "auto", ["debug", "info", "warning", "error"]),
        ({"verbose": True}, "console", ["debug", "info", "warning", "error"]),
    ],
)
def test_how_much_is_logged(
    wanted: dict[str, bool],
    form: Any,
    written: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Steps are logged where they were asked for; an error always is."""
    log.want(**{"quiet": False, "verbose": False} | wanted)
    log.configure(run_id="abc123", form=form)
    for level in ("debug", "info", "warning", "error"):
        getattr(log.logger(), level)(f"of-{level}")
    lines = capsys.readouterr().err.splitlines()

    assert [line.partition("of-")[2].split('"')[0] for line in lines] == written
    assert all("abc123" in line for line in lines) == (
        "verbose" in wanted or form != "console"
    )


def test_debug_lines_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    """What is below information is not for the log."""
    log.configure(run_id="abc123", form="json")
    log.logger().debug("x")

    assert capsys.readouterr().err == ""


def test_run_ids_differ() -> None:
    """Two runs are told apart by their ids."""
    ids = {log.new_run_id() for _ in range(100)}

    assert len(ids) == 100
    assert all(int(each, 16) >= 0 and len(each) == 12 for each in ids)
