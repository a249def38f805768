"""What all unit tests share: how Hypothesis runs, and who the tests run as."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from opskit import config
from opskit.config import Settings

# A slow machine is no fault of the code; the example database would be litter.
settings.register_profile(
    "unit",
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")

_NOBODY = 65534

Unprivileged = Callable[[], AbstractContextManager[None]]
LoadConfig = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment of the tests is meant for opskit."""
    for name in os.environ:
        if name.upper().startswith("OPSKIT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def load_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadConfig:
    """Return a function that loads a text as configuration, with variables set."""

    def load_config(text: str, **variables: str) -> Settings:
        path = tmp_path / "opskit.toml"
        path.write_text(text, encoding="utf-8")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return config.load(path)

    return load_config


@pytest.fixture
def shared_path() -> Iterator[Path]:
    """A folder that an unprivileged user can reach too, unlike `tmp_path`."""
    path = Path(tempfile.mkdtemp(prefix="unit-"))
    path.chmod(0o755)
    yield path
    for folder, _folders, _names in os.walk(path):
        Path(folder).chmod(
            0o700
        )  # a user who is not root could not remove what is in it
    shutil.rmtree(path)


@pytest.fixture
def unprivileged(shared_path: Path) -> Unprivileged:
    """Return a block in which the tests run as an ordinary user, even if root's."""
    if os.geteuid() == 0:
        os.chown(shared_path, _NOBODY, _NOBODY)

    @contextmanager
    def block() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(_NOBODY)
        os.seteuid(_NOBODY)
        try:
            if not os.access(shared_path, os.W_OK, effective_ids=True):
                pytest.skip(f"an ordinary user cannot reach {shared_path.parent}")
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)

    return block
