"""The container image, built by a real engine on the image that the tests have."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.errors import ContainerError

from opskit import __version__
from opskit.config import load
from opskit.fleet.manifests import kubernetes

ROOT = Path(__file__).resolve().parents[2]
_SECONDS_MAX = 900
_NAME = "opskit-test/opskit"
# Users and containers of other tests have their own.
_VOLUME = "opskit-test-state"
_ALIVE = "/var/lib/opskit/alive"

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


def test_what_a_worker_in_kubernetes_calls_is_in_it(
    engine: Any, built: Any, run: Callable[..., str], tmp_path: Path
) -> None:
    """The extra, and the programs that copy its secrets and ask for a sign of life."""
    configuration = tmp_path / "etc" / "opskit.toml"
    pod = next(
        yaml.safe_load_all(kubernetes(load(configuration), image=str(built.id)))
    )["spec"]["template"]["spec"]
    (first,), (worker,) = pod["initContainers"], pod["containers"]
    (tmp_path / "state" / "orders").chmod(0o444)
    script = (
        f"{shlex.join(first['command'])} && stat -c '%a %u' /run/secrets/opskit/*"
        f" && touch {_ALIVE} && {shlex.join(worker['livenessProbe']['exec']['command'])}"
    )
    copied = engine.containers.run(
        built.id,
        ["-c", script],
        entrypoint=["sh"],
        remove=True,
        read_only=True,
        cap_drop=["ALL"],
        tmpfs={"/run/secrets/opskit": "uid=10001", "/var/lib/opskit": "uid=10001"},
        volumes=[f"{tmp_path}/state:/mnt/secrets:ro"],
    )

    assert bytes(copied) == b"400 10001\n"
    with pytest.raises(ContainerError) as raised:
        run("fleet-init")
    assert "no queue is configured" in str(raised.value)
