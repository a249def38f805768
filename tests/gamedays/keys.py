"""Keys: the host loses its private keys, or somebody else has the signing key."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import ClassVar

from opskit.ledger import Ledger
from tests.gamedays.guarded import Guarded, Keys, make_keys, protect
from tests.gamedays.scenario import Person, Sign, StatusCheck
from tests.gamedays.system import System

# Steps of the runbook that not everybody needs.
_RESCUE, _IDENTITY, _RECIPIENT, _NO_TRUST = 2, 3, 4, 9


class Lost(Guarded):
    """The files of the identity and the signing key are gone; the safe has another."""

    runbook = "keys-lost"
    broken = "the signing key and the identity were deleted; a rescue identity was left"
    sign: ClassVar[Sign] = StatusCheck("last backup service")
    skip: ClassVar[Sequence[int]] = (_NO_TRUST,)
    keys: Keys

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Protect the sets."""
        self.keys = make_keys(system.folder / "keys")
        protect(system, self.keys)

    def break_(self, system: System) -> None:
        """Delete the files; the next backup ends before it begins."""
        self.keys.identity.unlink()
        self.keys.key.unlink()
        system.run("backup", codes=(2,))

    def inputs(self, _system: System) -> Mapping[str, str]:
        """Return the files, and what the configuration has of the old keys."""
        return {
            "identity_file": str(self.keys.identity),
            "rescue": str(self.keys.rescue),
            "old_recipient": self.keys.recipients[0],
            "key_file": str(self.keys.key),
            "old_key": self.keys.trusted[0].split()[1],
        }

    def follow(self, system: System) -> None:
        """Have the scheduler read the configuration again afterwards."""
        super().follow(system)
        system.scheduler.reload()


class Leaked(Lost):
    """Somebody signs a set with the key of this host."""

    broken = "the signing key was copied, and signed a set that was made elsewhere"
    sign = Person("whoever found the copy", "keys-lost")
    skip = (_RESCUE, _IDENTITY, _RECIPIENT)

    def break_(self, system: System) -> None:
        """Have another machine, with a ledger of its own, write into the store."""
        elsewhere = system.folder / "elsewhere"
        elsewhere.mkdir()
        shutil.copy(system.folder / "opskit.toml", elsewhere)
        subprocess.run(
            [sys.executable, "-m", "opskit", "backup"],
            cwd=elsewhere,
            env=system.environment,
            check=True,
            capture_output=True,
            timeout=60,
        )

    def deeper_faults(self, system: System) -> Iterator[str]:
        """Yield also which sets can be used that the ledger of this host has not."""
        yield from super().deeper_faults(system)
        made = {
            each.details.get("backup_id")
            for each in Ledger(system.folder / ".opskit" / "ledger.jsonl").entries()
            if each.operation == "backup"
        }
        for each in system.document("backups")["backups"]:
            if each["backup_id"] not in made:
                yield f"{each['backup_id']} was made elsewhere"

    def follow(self, system: System) -> None:
        """Move out of the store at last what the old key signed."""
        super().follow(system)
        aside = system.folder / "aside"
        aside.mkdir()
        for each in system.document("backups")["unreadable"]:
            shutil.move((system.folder / "store" / each["key"]).parent, aside)
        system.run("verify")
