"""A container engine and an image for the tests: `.ci/with_engine` brings both.

Where there is none these tests are skipped, unless TEST_OPSKIT_REQUIRE demands them.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import DockerException

IMAGE = "TEST_OPSKIT_IMAGE"
REQUIRE = "TEST_OPSKIT_REQUIRE"


# The Docker client forgets a socket where nothing answers, and a warning about it would
# fail whichever test runs when it is collected.
@pytest.fixture
def collected() -> Iterator[None]:
    """Collect here what would be warned of in another module's tests."""
    yield
    gc.collect()


def reached(name: str) -> tuple[Any, str]:
    """Return a client of the engine, and what is amiss with it or its image."""
    client, amiss = None, ""
    try:
        client = docker.from_env(timeout=120)
        client.images.get(name or "none")
    except DockerException as error:
        amiss = f"no engine answers, or no image {name!r} ({IMAGE}) is in it: {error}"
    gc.collect()
    return client, amiss


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the engine; a skip without one, or a failure where it is demanded."""
    client, amiss = reached(os.environ.get(IMAGE, ""))
    if amiss and "container" in os.environ.get(REQUIRE, "").split(","):
        pytest.fail(amiss)
    if amiss:
        pytest.skip(amiss)
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine: Any) -> str:
    """The image with PostgreSQL that the tests start."""
    return os.environ[IMAGE]
