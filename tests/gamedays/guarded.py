"""Guarded: a system whose sets are encrypted and signed, judged to the last byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.gamedays.scenario import Scenario
from tests.gamedays.system import System
from tests.unit import stock

_SECTIONS = """
[encryption]
recipients = {recipients}
identity_file = {identity}
[signing]
key_file = {key}
trusted_keys = {trusted}
"""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Private keys by their files, and the public ones that a configuration names."""

    identity: Path
    rescue: Path
    key: Path
    recipients: tuple[str, ...]
    trusted: tuple[str, ...]

    @property
    def sections(self) -> str:
        """Return the sections of the configuration."""
        return _SECTIONS.format(
            recipients=json.dumps(self.recipients),
            identity=json.dumps(str(self.identity)),
            key=json.dumps(str(self.key)),
            trusted=json.dumps(self.trusted),
        )


def make_keys(folder: Path) -> Keys:
    """Make an identity, a rescue identity and a signing key in a folder."""
    folder.mkdir()
    identity, rescue, key = (
        folder / name for name in ("identity.txt", "rescue.txt", "signing-key")
    )
    return Keys(
        identity=identity,
        rescue=rescue,
        key=key,
        recipients=(stock.age_key(identity), stock.age_key(rescue)),
        trusted=(stock.ssh_key(key),),
    )


def protect(system: System, keys: Keys, more: str = "") -> None:
    """Begin anew with encrypted and signed sets: one, which is drilled."""
    for each in (system.folder / ".opskit", *(system.folder / "store").glob("*/")):
        shutil.rmtree(each)
    system.configure(keys.sections + more)
    system.run("backup")
    system.run("restore-drill", "--mutants", "1")


class Guarded(Scenario):
    """A scenario after which every object, the ledger and a drill are looked at."""

    def faults(self, system: System) -> list[str]:
        """Return what is not as it is in the steady state; first what is soon known."""
        return system.faults() or [*self.deeper_faults(system)]

    def deeper_faults(self, system: System) -> Iterator[str]:
        """Yield what is wrong with the sets, the ledger, and a copy of the newest set."""
        for arguments in (
            ["verify"],
            ["ledger", "--verify"],
            ["restore-drill", "--mutants", "1"],
        ):
            document = system.document(*arguments, codes=range(256))
            if error := document.get("error"):
                yield f"{' '.join(arguments)}: {error}"
