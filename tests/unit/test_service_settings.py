"""The service's settings, and what is generated from them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from service import settings
from service.__main__ import main
from service.settings import Settings

from tests.service import FOLDER


def test_the_example_of_the_environment_is_what_the_settings_say() -> None:
    """`.env.example` is written by the service itself."""
    written = (FOLDER / ".env.example").read_text(encoding="utf-8")

    assert settings.example() == written


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate_limit", "often"),
        ("jwt_secret", "short"),
        ("body_bytes_max", 0),
        ("body_seconds", 3600),
        ("log_level", "all"),
        ("unknown", 1),
    ],
)
def test_an_impossible_setting_is_refused(name: str, value: Any) -> None:
    """With the name of the setting, before anything is served."""
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: value})


def test_what_is_wrong_with_a_secret_is_said_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command line names the setting, and ends."""
    monkeypatch.setattr("sys.argv", ["service", "migrate"])
    monkeypatch.setenv("SERVICE_JWT_SECRET", "hunter2")

    with pytest.raises(SystemExit) as ended:
        main()

    assert "jwt_secret" in str(ended.value)
    assert "hunter2" not in str(ended.value)


def test_secrets_are_not_printed_with_the_settings() -> None:
    """Neither the database's password nor what signs tokens."""
    url, secret = "postgresql://u:hunter2@db.example/x", "s" * 40

    shown = repr(Settings(database_url=url, jwt_secret=secret))

    assert "hunter2" not in shown
    assert secret not in shown
