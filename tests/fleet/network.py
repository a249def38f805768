"""Network: a bridge of this machine, and machines in namespaces that are joined to it.

Only root can make them. What a killed campaign left behind is removed by the next one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
_NAMESPACES = Path("/run/netns")
_OURS = re.compile(r"opskit-(\d+)-\d+")


def is_possible() -> bool:
    """Return whether this process may make namespaces."""
    if os.geteuid() != 0 or shutil.which("ip", path=_path()) is None:
        return False
    name = f"opskit-{os.getpid()}-0"
    try:
        _ip("netns", "add", name)
        _ip("netns", "delete", name)
    except subprocess.CalledProcessError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class Place:
    """A machine of its own as far as the network goes."""

    name: str
    link: str
    bridge: str
    queue: str

    @property
    def before(self) -> Sequence[str]:
        """What stands in front of a command that is to run there."""
        program = shutil.which("nsenter", path=_path())
        assert program is not None
        return (program, f"--net={_NAMESPACES / self.name}")

    def unplug(self) -> None:
        """Let every packet from and to it vanish, of open connections as well."""
        _ip("link", "set", self.link, "nomaster")

    def plug(self) -> None:
        """Join it again."""
        _ip("link", "set", self.link, "master", self.bridge)

    def split(self) -> None:
        """Let it reach everything but the queue."""
        _ip("-n", self.name, "route", "replace", "unreachable", f"{self.queue}/32")

    def mend(self) -> None:
        """Let it reach the queue again."""
        _ip("-n", self.name, "route", "delete", "unreachable", f"{self.queue}/32")


@dataclass(frozen=True, kw_only=True)
class Network:
    """The addresses that servers listen on, and the places in namespaces."""

    address: str
    queue: str
    places: tuple[Place, ...] = ()


@contextmanager
def network(count: int) -> Iterator[Network]:
    """Yield a network with so many places of its own; without any, the loopback."""
    if not count:
        yield Network(address=LOOPBACK, queue=LOOPBACK)
        return
    sweep()
    pid = os.getpid()
    # One of 16,384 networks of which nobody but this process has the number.
    net = f"10.{192 + pid // 256 % 64}.{pid % 256}"
    bridge, queue = f"opskit{pid}", f"{net}.2"
    with ExitStack() as stack:
        _ip("link", "add", bridge, "type", "bridge")
        stack.callback(_ip, "link", "delete", bridge)
        for number in (1, 2):
            _ip("address", "add", f"{net}.{number}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        places = []
        for number in range(1, count + 1):
            place = Place(
                name=f"opskit-{pid}-{number}",
                link=f"ok{pid}-{number}",
                bridge=bridge,
                queue=queue,
            )
            _ip("netns", "add", place.name)
            stack.callback(_ip, "netns", "delete", place.name)
            _join(place, f"{net}.{number + 9}/24")
            places.append(place)
        yield Network(address=f"{net}.1", queue=queue, places=tuple(places))


def _join(place: Place, address: str) -> None:
    other = ("type", "veth", "peer", "name", "eth0", "netns", place.name)
    _ip("link", "add", place.link, *other)
    _ip("link", "set", place.link, "master", place.bridge, "up")
    _ip("-n", place.name, "address", "add", address, "dev", "eth0")
    for each in ("lo", "eth0"):
        _ip("-n", place.name, "link", "set", each, "up")


def sweep() -> None:
    """Remove what campaigns left that were killed."""
    for path in _NAMESPACES.glob("opskit-*"):
        found = _OURS.fullmatch(path.name)
        if found and not Path("/proc", found[1]).exists():
            _ip("netns", "delete", path.name)
            subprocess.run(
                ["ip", "link", "delete", f"opskit{found[1]}"],
                env={"PATH": _path()},
                capture_output=True,
                check=False,  # it is gone since the first of its namespaces
            )


def _ip(*arguments: str) -> None:
    subprocess.run(
        ["ip", *arguments],
        env={"PATH": _path()},
        check=True,
        capture_output=True,
        timeout=30,
    )


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
