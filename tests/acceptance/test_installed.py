"""What is distributed: a wheel and an sdist, installed where nothing else is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from types import MappingProxyType

import pytest

from opskit import __version__
from tests.acceptance.conftest import ROOT
from tests.acceptance.test_fresh_clone import clone

_SECONDS_MAX = 300
_BIN = Path(sys.executable).parent
_FOLDERS = ("docs/", "runbooks/", "workflows/")
_VERSION = f"opskit {__version__}\n"


def run(
    *words: str | Path,
    folder: Path,
    code: int = 0,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Run a program with no environment but this, and return standard output."""
    done = subprocess.run(
        words,
        cwd=folder,
        env={"PATH": os.environ["PATH"]} | dict(environment),
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == code, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout


def install(*words: str | Path, folder: Path, **environment: str) -> None:
    """Run an installer with the versions of the lock, and the caches of this user."""
    pins = folder / "constraints.txt"
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins.write_text("\n".join(re.findall(r"^\S+==[^\\]+", lock, re.MULTILINE)))
    pinned = {"PIP_CONSTRAINT": str(pins), "UV_CONSTRAINT": str(pins)}
    # As pip does; uv would know the authorities alone that came with it.
    pinned["UV_SYSTEM_CERTS"] = "true"
    # uv is beside this Python; it must not take that for the one to install into.
    path = f"{_BIN}{os.pathsep}{os.environ['PATH']}"
    own = {key: each for key, each in os.environ.items() if key != "VIRTUAL_ENV"}
    whole = own | pinned | {"PATH": path} | environment
    run(*words, folder=folder, environment=whole)


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A wheel and an sdist, and what was in the clone that they were made of."""

    wheel: Path
    sdist: Path
    tracked: frozenset[str]

    def in_wheel(self) -> set[str]:
        """Return the names of the files in the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())

    def in_sdist(self) -> set[str]:
        """Return the names of the files in the sdist, below its one folder."""
        with tarfile.open(self.sdist) as archive:
            return {each.partition("/")[2] for each in archive.getnames()}

    def description(self) -> str:
        """Return what an index would show."""
        with zipfile.ZipFile(self.wheel) as archive:
            (name,) = (e for e in archive.namelist() if e.endswith("/METADATA"))
            read = Parser().parsestr(archive.read(name).decode())
        return str(read.get_payload())


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """What is made of a clone in which things lie about; the wheel out of the sdist."""
    folder = tmp_path_factory.mktemp("distribution")
    source, made = folder / "clone", folder / "made"
    clone(source)
    tracked = {str(e.relative_to(source)) for e in source.rglob("*") if e.is_file()}
    for name in (
        "opskit.toml",
        ".env",
        "docs/.env",
        ".opskit/state",
        ".venv/bin/python",
        "opskit/__pycache__/files.cpython-311.pyc",
        "runbooks/node_modules/package.json",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("secret")
    install("uv", "build", "--out-dir", made, source, folder=folder)
    (wheel,), (sdist,) = made.glob("*.whl"), made.glob("*.tar.gz")
    return Distribution(wheel=wheel, sdist=sdist, tracked=frozenset(tracked))


def test_the_wheel_holds_the_package_and_its_documents(
    distribution: Distribution,
) -> None:
    """Each file of the clone that belongs there, and no other."""
    documents = {e for e in distribution.tracked if e.startswith(_FOLDERS)}
    package = {e for e in distribution.tracked if e.startswith("opskit/")}
    held = {e for e in distribution.in_wheel() if ".dist-info/" not in e}

    assert {e.partition("/")[0] for e in documents} >= {"docs", "runbooks"}
    assert held == package | {
        f"opskit/documents/{each}" for each in documents | {"README.md"}
    }


def test_the_sdist_holds_what_the_wheel_is_made_of(distribution: Distribution) -> None:
    """Nothing that lay about in the clone is in it."""
    parts = {e for e in distribution.tracked if e.startswith(("opskit/", *_FOLDERS))}
    names = {".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"}

    assert distribution.in_sdist() == parts | names | {"PKG-INFO"}


def test_the_description_on_an_index_has_no_broken_links(
    distribution: Distribution,
) -> None:
    """It is the README; of its links those to other sites are left."""
    description = distribution.description()
    links = re.findall(r"\]\(([^)]*)\)", description)

    assert "docs/drill.md" in description
    assert links
    assert [each for each in links if not each.startswith("https://")] == []


def with_pip(distribution: Distribution, folder: Path) -> Path:
    """Install the wheel by pip into an environment, then the sdist over it."""
    environment = folder / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, folder=folder)
    pip = (_BIN / "pip", "--python", environment / "bin" / "python", "install", "-q")
    install(*pip, distribution.wheel, folder=folder)
    again = ("--force-reinstall", "--no-deps")
    install(*pip, *again, distribution.sdist, folder=folder)
    return environment / "bin" / "opskit"


def with_pipx(distribution: Distribution, folder: Path) -> Path:
    """Install the sdist by pipx."""
    places = {f"PIPX_{e}": str(folder / e) for e in ("HOME", "BIN_DIR", "MAN_DIR")}
    install("pipx", "install", distribution.sdist, folder=folder, **places)
    return folder / "BIN_DIR" / "opskit"


def with_uv(distribution: Distribution, folder: Path) -> Path:
    """Install the wheel by uv."""
    places = {f"UV_TOOL_{e}": str(folder / e) for e in ("DIR", "BIN_DIR")}
    install("uv", "tool", "install", distribution.wheel, folder=folder, **places)
    return folder / "BIN_DIR" / "opskit"


@pytest.fixture(scope="module", params=[with_pip, with_pipx, with_uv])
def program(
    distribution: Distribution,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Path:
    """The console script of an installed opskit, without any extra."""
    installed: Callable[[Distribution, Path], Path] = request.param
    path = installed(distribution, tmp_path_factory.mktemp("installed"))
    assert path.exists()
    return path


def listed(*words: str | Path, folder: Path) -> list[str]:
    """Return the names of the tasks that a program lists."""
    return re.findall(r"^  (\S+)   ", run(*words, "--list", folder=folder), re.M)


def test_an_installed_opskit_says_what_it_is(program: Path, tmp_path: Path) -> None:
    """By the console script and as a module; its tasks are those of the clone."""
    python = program.resolve().parent / "python"

    assert run(program, "--version", folder=tmp_path) == _VERSION
    assert run(python, "-m", "opskit", "--version", folder=tmp_path) == _VERSION
    assert listed(program, folder=tmp_path) == listed(
        sys.executable, "-m", "opskit", folder=ROOT
    )


def test_an_installed_opskit_sets_up_backs_up_and_drills(
    program: Path, tmp_path: Path
) -> None:
    """A folder of files needs no PostgreSQL; documents lie where hints say they do."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "orders").write_text("17 pairs of shoes")
    refused = json.loads(run(program, "doctor", "--json", folder=tmp_path, code=2))
    (document,) = map(Path, re.findall(r"/\S+\.md\b", refused["hint"]))
    github = ["--run", "github", "--database", "shop=postgresql://ops@db.example/shop"]
    github += ["--store", "s3://acme-backups/prod"]
    here = ["--files", f"state={tmp_path}/state", "--store", f"{tmp_path}/store"]

    shown = run(program, "init", "--yes", "--diff", *github, folder=tmp_path)
    run(program, "init", "--yes", *here, folder=tmp_path)
    run(program, "backup", folder=tmp_path)
    drilled = json.loads(run(program, "restore-drill", "--json", folder=tmp_path))

    assert drilled["passed"] is True
    assert document.is_relative_to(program.resolve().parents[1])
    assert document.read_text(encoding="utf-8").startswith("# ")
    assert ".github/workflows/backup.yml" in shown
    assert (tmp_path / "runbooks" / "database-lost.md").is_file()


_FLEET = """
[databases.shop]
url = "postgresql://ops@127.0.0.1:1/shop"
[fleet]
url = "postgresql://ops@127.0.0.1:1/queue?connect_timeout=2"
"""


def test_without_its_extra_a_fleet_says_what_to_install(
    program: Path, tmp_path: Path
) -> None:
    """One line of what is missing and one of what to do; what needs no queue works."""
    (tmp_path / "opskit.toml").write_text(_FLEET, encoding="utf-8")

    done = subprocess.run(
        [program, "fleet-worker"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    made = run(program, "fleet-manifests", "--kubernetes", folder=tmp_path)

    assert done.returncode == 30
    assert done.stderr.splitlines() == [
        "error: procrastinate is not installed",
        "hint: Install opskit with its extra: `pip install 'opskit-postgres[fleet]'`.",
    ]
    assert "kind: Deployment" in made


def test_with_its_extra_a_fleet_asks_for_its_queue(
    distribution: Distribution, tmp_path: Path
) -> None:
    """Nothing else is missing, also where nothing else is installed."""
    (tmp_path / "opskit.toml").write_text(_FLEET, encoding="utf-8")
    places = {f"UV_TOOL_{e}": str(tmp_path / e) for e in ("DIR", "BIN_DIR")}
    wheel = f"{distribution.wheel}[fleet]"
    install("uv", "tool", "install", wheel, folder=tmp_path, **places)
    program = tmp_path / "BIN_DIR" / "opskit"

    tasks = listed(program, folder=tmp_path)
    refused = json.loads(run(program, "fleet-init", "--json", folder=tmp_path, code=30))

    assert {each for each in tasks if each.startswith("fleet-")} >= {
        "fleet-init", "fleet-manifests", "fleet-run", "fleet-worker"
    }  # fmt: skip
    assert "127.0.0.1" in refused["error"]
    assert "procrastinate" not in refused["error"]
