"""Turns what pydantic says of a bad configuration into one sentence for a person."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from opskit.errors import ConfigurationError
from opskit.log import MASK, mask

# Variables that are no configuration themselves.
_OURS = {"OPSKIT_CONFIG", "OPSKIT_DEBUG"}


def validation_error(
    error: ValidationError, model: type[BaseModel], path: Path
) -> ConfigurationError:
    """Return an error that names each key, its value and what is allowed there."""
    problems = [_problem(detail, model) for detail in error.errors()]
    return ConfigurationError(
        f"{path}: " + "; ".join(problems),
        hint="Mend the keys named in the file or the environment; "
        "docs/configuration.md lists every key.",
    )


def unknown_environment(
    environment: Mapping[str, str], prefix: str, sections: set[str]
) -> None:
    """Refuse variables with our prefix that name no section.

    Raises:
        ConfigurationError: such a variable is set; it would silently have no effect.
    """
    for name in sorted(environment):
        if not name.startswith(prefix) or name in _OURS:
            continue
        section = name.removeprefix(prefix).split("__")[0].lower()
        if section not in sections:
            raise ConfigurationError(
                f"the environment variable {name} names no configuration section"
                + _suggest(section, sections),
                hint="Unset it, or spell it OPSKIT_SECTION__KEY.",
            )


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> str:
    location = [str(part) for part in detail["loc"] if part != "[key]"]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        allowed = _fields_at(model, location[:-1])
        return f"unknown key {key}{_suggest(location[-1], allowed)}"
    if detail["type"] == "missing":
        return f"{key} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    shown = _shown(detail["input"])
    return f"{key} = {shown}: {message[0].lower()}{message[1:]}"


def _shown(value: object) -> str:
    if isinstance(value, BaseModel | dict):
        return "{…}"
    shown = repr(value)
    # What stands before an @ may be a password, however the URL is misspelt.
    return MASK if re.search(r"[^'\"]@", shown) else mask(shown)


def _suggest(name: str, allowed: set[str]) -> str:
    near = difflib.get_close_matches(name, allowed, n=1)
    if near:
        return f" (did you mean {near[0]}?)"
    return f" (allowed: {', '.join(sorted(allowed))})" if allowed else ""


def _fields_at(model: type[BaseModel], location: list[str]) -> set[str]:
    """Follow a location into the model; a name chosen by the user matches any."""
    annotation: object = model
    for part in location:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(part)
            annotation = field.annotation if field else None
        else:
            annotation = _inner(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return set(annotation.model_fields)
    return set()


def _inner(annotation: object) -> object:
    arguments = [
        argument
        for argument in typing.get_args(annotation)
        if argument is not types.NoneType
    ]
    return arguments[-1] if arguments else None
