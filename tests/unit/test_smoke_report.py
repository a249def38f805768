"""What a smoke run says in files, which families there are, and what is known."""

from __future__ import annotations

import inspect
import pkgutil
from datetime import UTC, date, datetime
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest

from opskit import probes
from opskit.checks import Check
from opskit.config.smoke import Profile, SmokeSettings
from opskit.config.watch import SloSettings
from opskit.errors import ConfigurationError
from opskit.log import hide
from opskit.operations.smoke import families
from opskit.probes.baseline import load
from opskit.probes.report import Finding, SmokeReport, junit

ENTRY = '[[known]]\nprobe = "health.ok"\nowner = "web"\nreason = "old"\n'


def test_every_family_is_listed() -> None:
    """A module whose probes are made of the settings is a family."""
    found = set()
    for each in pkgutil.iter_modules(probes.__path__):
        made = getattr(import_module(f"opskit.probes.{each.name}"), "probes", None)
        if made and "settings" in inspect.signature(made).parameters:
            found.add(each.name)
    assert found - {"tokens"} == families(SmokeSettings(), SloSettings()).keys()


def test_junit_masks_the_host_and_counts_verdicts() -> None:
    """A hidden text in the address does not reach the file."""
    hide("a-hidden-part-of-it")
    check = Check(name="health.ok", passed=False, expected="200", observed="500")
    silent = Check(name="health.more", passed=None)
    text = junit(
        SmokeReport(
            url="https://a-hidden-part-of-it.example",
            profile=Profile("minimal"),
            started_at=datetime(2026, 1, 2, tzinfo=UTC),
            findings=tuple(Finding(family="health", check=e) for e in (check, silent)),
            not_configured=("cors",),
            requests=3,
            seconds=1.5,
        )
    )
    assert "a-hidden-part-of-it" not in text
    (suite,) = ElementTree.fromstring(text.encode())
    counted = [suite.get(e) for e in ("tests", "failures", "errors", "skipped")]
    assert counted == ["3", "1", "1", "1"]


def test_a_known_failure_expires_after_its_day(tmp_path: Path) -> None:
    """The last day is still good."""
    file = tmp_path / "known.toml"
    file.write_text(f"{ENTRY}expires = 2026-03-31\n")
    known = load(file, probes=["health.ok"])["health.ok"]
    assert not known.has_expired(date(2026, 3, 31))
    assert known.has_expired(date(2026, 4, 1))


def test_a_known_failure_of_a_silent_family_is_no_mistake(tmp_path: Path) -> None:
    """The same file serves an address without TLS, and one that is not in production."""
    file = tmp_path / "known.toml"
    file.write_text(f"{ENTRY}expires = 2026-03-31".replace("health.ok", "tls.chain"))

    assert "tls.chain" in load(file, probes=["health.ok"], silent=["tls"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[[known]", "cannot be read"),
        ("[[old]]", "known: field required"),
        (ENTRY, "known.0.expires"),
        (f'{ENTRY}expires = "2026-03-31"', "known.0.expires"),
        (f"{ENTRY}expires = 2026-03-31".replace("web", "  "), "known.0.owner"),
        (ENTRY.replace('reason = "old"', "expires = 2026-03-31"), "known.0.reason"),
        ('[[known]]\nprobe = "\x00"', "cannot be read"),
        (f"{ENTRY}expires = 2026-03-31\n" * 2, "names health.ok twice"),
        (
            f"{ENTRY}expires = 2026-03-31\n".replace("health.ok", "health.okk"),
            "there is no probe health.okk (did you mean health.ok?)",
        ),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path: Path, content: str, words: str) -> None:
    """The message names the file and the place; the exit code is 2."""
    file = tmp_path / "known.toml"
    file.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        load(file, probes=["health.ok"])
    assert str(file) in str(caught.value)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2
