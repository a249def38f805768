"""What `smoke --explain` says of probes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.config.smoke import SmokeSettings
from opskit.config.watch import SloSettings
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run
from opskit.operations.smoke import Explained, SmokeRequest, explain, families
from tests.unit.conftest import LoadConfig

HTTPS = SmokeRequest(url="https://app.example")


def _explained(
    load_config: LoadConfig,
    folder: Path,
    name: str,
    request: SmokeRequest | None = None,
    more: str = "",
) -> Outcome[Explained]:
    """Explain by a configuration that names no service and no store."""
    run = Run(load_config(f'state_dir = "{folder / "state"}"\n{more}'))
    return explain(run, request or SmokeRequest(), name)


def _names(outcome: Outcome[Explained]) -> list[str]:
    assert outcome.result is not None, outcome.errors
    return [each.name for each in outcome.result.probes]


def test_a_probe_a_family_or_all_are_explained(
    load_config: LoadConfig, tmp_path: Path
) -> None:
    """All are what the configuration asks; nothing goes on record."""
    one = _explained(load_config, tmp_path, "headers.nosniff")
    family = _explained(load_config, tmp_path, "headers")
    everything = _explained(load_config, tmp_path, "all")

    assert _names(one) == ["headers.nosniff"]
    of_headers = [each for each in _names(everything) if each.startswith("headers.")]
    assert len(of_headers) > 3
    assert _names(family) == of_headers
    asked = families(SmokeSettings(), SloSettings()).values()
    assert _names(everything) == [
        "version", *(each.name for several in asked for each in several)
    ]  # fmt: skip
    assert everything.result is not None
    for each in everything.result.as_json()["probes"]:
        assert all(each[name].endswith(".") for name in ("what", "why", "remedy"))
    assert not (tmp_path / "state").exists()


def test_the_address_of_the_call_counts(
    load_config: LoadConfig, tmp_path: Path
) -> None:
    """TLS is asked of an https address alone."""
    without = _explained(load_config, tmp_path, "tls")
    with_one = _explained(load_config, tmp_path, "tls", HTTPS)

    assert without.exit_code == 2
    assert "https://" in without.errors[0].hint
    assert {each.partition(".")[0] for each in _names(with_one)} == {"tls"}


@pytest.mark.parametrize(
    ("name", "request_", "error", "hint"),
    [
        ("cors", HTTPS, "nothing is configured for the family cors", "[smoke.cors]"),
        ("cors.preflight", HTTPS, "for the family cors", "[smoke.cors]"),
        ("hedders", HTTPS, "there is no probe hedders", "Did you mean headers"),
        ("xyz", HTTPS, "there is no probe xyz", "`inv smoke --explain all`"),
        ("all", SmokeRequest(profile="most"), "there is no profile most", "standard"),
        ("all", SmokeRequest(url="app"), "--url must begin with", "https://"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    load_config: LoadConfig,
    tmp_path: Path,
    name: str,
    request_: SmokeRequest,
    error: str,
    hint: str,
) -> None:
    """The exit code is 2, and the hint says what to type."""
    outcome = _explained(load_config, tmp_path, name, request_)

    assert outcome.exit_code == 2
    assert error in outcome.errors[0].message
    assert hint in outcome.errors[0].hint


def test_no_version_can_be_expected_where_none_is_named(
    load_config: LoadConfig, tmp_path: Path
) -> None:
    """It would never be confirmed."""
    outcome = _explained(
        load_config,
        tmp_path,
        "all",
        SmokeRequest(version="2"),
        '[smoke.version]\nfield = ""\n',
    )

    assert outcome.exit_code == 2
    assert "smoke.version.field is empty" in outcome.errors[0].message
