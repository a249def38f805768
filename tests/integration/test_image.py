"""The container image, built by a real engine on the image that the tests have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from opskit import __version__

ROOT = Path(__file__).resolve().parents[2]
_SECONDS_MAX = 900
_NAME = "opskit-test/opskit"
# Users and containers of other tests have their own.
_VOLUME = "opskit-test-state"

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("collected"),
]


@pytest.fixture(scope="module")
def built(engine: Any, image: str) -> Iterator[Any]:
    """What the Containerfile makes; it stays, as the image does that it is made on."""
    made, _log = engine.images.build(
        path=str(ROOT),
        dockerfile="Containerfile",
        buildargs={"BASE": image},
        tag=_NAME,
        rm=True,
        forcerm=True,
        timeout=_SECONDS_MAX,  # a layer is made in silence
    )
    yield made
    engine.volumes.get(_VOLUME).remove()


@pytest.fixture
def run(engine: Any, built: Any, tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs opskit as the README does, and with less rights."""
    for name in ("etc", "state", "store"):
        (tmp_path / name).mkdir()
    (tmp_path / "store").chmod(0o777)
    (tmp_path / "state" / "orders").write_text("17 pairs of shoes")
    (tmp_path / "etc" / "opskit.toml").write_text(
        "[files.state]\npath = '/srv/state'\n[stores.local]\nurl = 'file:///srv/store'\n"
    )
    places = [
        f"{tmp_path}/etc:/etc/opskit:ro",
        f"{tmp_path}/state:/srv/state:ro",
        f"{tmp_path}/store:/srv/store",
        f"{_VOLUME}:/var/lib/opskit",
    ]

    def run(*words: str, **options: Any) -> str:
        given = {"read_only": True, "tmpfs": {"/tmp": ""}, "cap_drop": ["ALL"]}
        output = engine.containers.run(
            built.id, list(words), remove=True, volumes=places, **given, **options
        )
        return bytes(output).decode()

    return run


def test_the_image_is_for_an_ordinary_user(built: Any, run: Callable[..., str]) -> None:
    """It runs opskit as one, keeps state in a volume, and has no sources."""
    config = built.attrs["Config"]

    assert config["User"] == "10001"
    assert config["Entrypoint"] == ["opskit"]
    assert list(config["Volumes"]) == ["/var/lib/opskit"]
    assert run("--version") == f"opskit {__version__}\n"
    assert run("!", "-e", "/src", entrypoint=["test"]) == ""


def test_a_folder_is_backed_up_in_a_container(
    run: Callable[..., str], tmp_path: Path
) -> None:
    """By a configuration that is mounted; the next container finds what it left."""
    run("backup")
    verified = json.loads(run("verify", "--json"))
    runs = json.loads(run("ledger", "--json"))

    assert (verified["status"], verified["objects"]) == ("ok", 2)
    assert len([*(tmp_path / "store").rglob("manifest.json")]) == 1
    assert {"backup", "verify"} <= {each["operation"] for each in runs["entries"]}


def test_a_database_is_backed_up_and_drilled_in_a_container(
    run: Callable[..., str],
) -> None:
    """The programs of PostgreSQL come with it."""
    made = json.loads(run("quickstart", "--json", working_dir="/var/lib/opskit"))

    assert made["drill"]["passed"] is True
