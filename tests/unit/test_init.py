"""What `init` writes into a repository, and what it leaves alone."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from opskit import config
from opskit.config import Settings
from opskit.errors import UsageError
from opskit.operations import repository
from opskit.operations.init import Initialised, InitRequest, init, plan
from opskit.operations.repository import DEPLOYERS, RUNNERS, Answers, answers

SHOP = "shop=postgresql://ops@db.example/shop"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("OPSKIT_")]:
        monkeypatch.delenv(name)


def answered(folder: Path, **given: Any) -> Answers:
    """Return the answers of a call with a database and a store in a bucket."""
    usual: dict[str, Any] = {
        "databases": [SHOP],
        "folders": [],
        "store": "s3://acme-backups/prod",
        "endpoint": "",
        "deployer": "none",
        "run": "both",
    }
    return answers(folder, **usual | given)


def run(
    folder: Path, *, force: bool = False, diff: bool = False, **given: Any
) -> Initialised:
    """Initialise a folder, and return what became of it."""
    request = InitRequest(
        answers=answered(folder, **given), folder=folder, force=force, diff=diff
    )
    done = init(plan(request)).result
    assert done is not None
    return done


def tree(folder: Path) -> Mapping[str, bytes]:
    """Return every file below a folder, and its content."""
    return {
        str(each.relative_to(folder)): each.read_bytes()
        for each in sorted(folder.rglob("*"))
        if each.is_file()
    }


def states(done: Initialised) -> dict[str, str]:
    """Return what became of each file."""
    return {each.path: each.state for each in done.files}


def uncommented(text: str) -> str:
    """Return a configuration with what is left to fill in."""
    return re.sub(r"(?m)^# (?=\w+ = |\[)", "", text)


@pytest.mark.parametrize("deployer", DEPLOYERS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_the_configuration_loads_as_it_is_and_filled_in(
    deployer: str, runner: str, tmp_path: Path
) -> None:
    """Each key is real, also one that is left to fill in."""
    run(
        tmp_path,
        databases=[SHOP, "crm_2=postgresql:///crm"],
        folders=["state=/var/lib/app"],
        endpoint="https://s3.example.net",
        deployer=deployer,
        run=runner,
    )
    path = tmp_path / "opskit.toml"
    whole = uncommented(path.read_text())

    settings = config.load(path)
    filled = config.validated(tomllib.loads(whole), path)

    assert list(settings.databases) == ["shop", "crm_2"]
    assert settings.databases["shop"].resolve_url() == SHOP.removeprefix("shop=")
    assert settings.stores["offsite"].endpoint_url == "https://s3.example.net"
    assert bool(settings.databases["shop"].schedule) == (runner != "github")
    assert settings.release.deployer == ("" if deployer == "none" else deployer)
    if deployer != "none":
        assert filled.smoke.url
        assert filled.release.migrations.database == "shop"
    assert isinstance(filled, Settings)


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    """The same answers make the same files."""
    run(tmp_path)
    before = tree(tmp_path)

    again = run(tmp_path, force=True)

    assert set(states(again).values()) == {"unchanged"}
    assert tree(tmp_path) == before


def test_what_differs_is_kept_and_with_force_overwritten(tmp_path: Path) -> None:
    """A file of the user is overwritten only if that was asked for."""
    (tmp_path / "tasks.py").write_text("# mine\n")

    done = run(tmp_path)

    assert states(done)["tasks.py"] == "kept"
    assert (tmp_path / "tasks.py").read_text() == "# mine\n"
    assert states(run(tmp_path, force=True))["tasks.py"] == "overwritten"
    assert "from opskit.tasks import namespace" in (tmp_path / "tasks.py").read_text()


def test_a_password_is_refused_and_not_shown(tmp_path: Path) -> None:
    """Neither the configuration nor the message holds it."""
    for url in (
        "postgresql://ops:secret99@db/shop",
        "postgresql:///a?sslpassword=secret99",
    ):
        with pytest.raises(UsageError) as caught:
            answered(tmp_path, databases=[f"shop={url}"])

        assert "secret99" not in caught.value.message + caught.value.hint
        assert "OPSKIT_DATABASES__SHOP__URL" in caught.value.hint


def test_the_environment_file_lists_every_secret_and_sets_none(tmp_path: Path) -> None:
    """It can be read by a shell as it is; its variables are those of the settings."""
    text = repository.environment(answered(tmp_path))

    assert [
        line for line in text.splitlines() if line and not line.startswith("#")
    ] == []
    assert set(re.findall(r"(?m)^#(\w+)=$", text)) == {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
        "OPSKIT_DATABASES__SHOP__URL",
        "OPSKIT_DATABASES__SHOP__RESTORE_URL",
        "OPSKIT_ENCRYPTION__IDENTITY_PASSPHRASE",
        "OPSKIT_SIGNING__KEY_PASSPHRASE",
        "OPSKIT_DRILL__EXISTING_URL",
        "OPSKIT_NOTIFY__URLS",
        "OPSKIT_NOTIFY__HEARTBEATS",
        "OPSKIT_NOTIFY__DRILL_HEARTBEATS",
        "OPSKIT_NOTIFY__SENTRY_DSN",
        "OPSKIT_RELEASE__RAILWAY__TOKEN",
    }
