"""Baseline: failures that are known, each with an owner and a date when that ends."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from opskit.config.section import Section
from opskit.errors import ConfigurationError

_HINT = (
    "An entry is [[known]] with probe, owner, reason and expires = 2026-12-31; "
    "docs/smoke.md shows one."
)

_Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Known(Section):
    """A failure that is known: it does not count until it expires."""

    probe: str
    owner: _Words
    reason: _Words
    expires: date = Field(strict=True)

    def has_expired(self, today: date) -> bool:
        """Return whether the failure counts again; the last day is still good."""
        return today > self.expires


class _File(Section):
    known: list[Known]


def load(
    path: Path, *, probes: Collection[str], silent: Collection[str] = ()
) -> Mapping[str, Known]:
    """Return the known failures in a file, by probe.

    Of families that are `silent`, any name may be a probe's.

    Raises:
        ConfigurationError: the file cannot be read, an entry lacks something or names
            no probe, or two name the same one.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = _File.model_validate(content).known
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        message = first["msg"][0].lower() + first["msg"][1:]
        raise ConfigurationError(
            f"smoke.baseline {path}: {place}: {message}", hint=_HINT
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"smoke.baseline {path} cannot be read: {reason}", hint=_HINT
        ) from error
    known: dict[str, Known] = {}
    for each in entries:
        where = f"smoke.baseline {path}"
        require_known(each.probe, probes, silent=silent, where=where)
        if each.probe in known:
            raise ConfigurationError(
                f"smoke.baseline {path} names {each.probe} twice",
                hint="Keep one of the entries.",
            )
        known[each.probe] = each
    return known


def require_known(
    name: str, names: Collection[str], *, silent: Collection[str] = (), where: str
) -> None:
    """Refuse a name that no probe has.

    Raises:
        ConfigurationError: it is not among the names, nor of a family that is silent:
            one that is not configured, or has nothing to ask at this address.
    """
    if name not in names and name.partition(".")[0] not in silent:
        raise ConfigurationError(
            f"{where}: there is no probe {name}"
            + (f" (did you mean {near}?)" if (near := nearest(name, names)) else ""),
            hint="`inv smoke --explain all` lists the probes of the configuration.",
        )


def nearest(name: str, names: Collection[str]) -> str:
    """Return the names that are most like one that does not exist, empty if none is."""
    return " or ".join(difflib.get_close_matches(name, names))
