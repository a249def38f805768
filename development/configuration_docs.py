"""docs/configuration.md, written from the settings model: `python -m` prints it."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from inspect import getdoc
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from development.configuration_head import HEAD
from opskit.config import ENVIRONMENT_PREFIX, Settings
from opskit.config.section import format_duration

_NAMES: dict[object, str] = {
    str: "text",
    SecretStr: "text, never shown",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    timedelta: "duration",
    Any: "value",
}
_BOUNDS = (("ge", "at least", max), ("gt", "more than", max), ("le", "at most", min))


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the file; `path` and `variable` are what its keys' names begin with."""

    title: str
    path: str
    variable: str | None
    model: type[BaseModel]
    fields: dict[str, FieldInfo]


def render() -> str:
    """Return the text of docs/configuration.md."""
    return HEAD + "".join(map(_render_section, sections()))


def sections() -> list[Section]:
    plain: dict[str, FieldInfo] = {}
    found: list[Section] = []
    for name, field in Settings.model_fields.items():
        variable = ENVIRONMENT_PREFIX + name.upper()
        if typing.get_origin(field.annotation) is dict:
            model = typing.get_args(field.annotation)[1]
            found += _of(model, f"[{name}.NAME]", name, f"{variable}__NAME")
        elif (model := _model(field.annotation)) is not None:
            found += _of(model, f"[{name}]", name, variable)
        else:
            plain[name] = field
    # First, because a key that follows a section's head belongs to that section.
    top = Section(
        title="At the top of the file, before any section",
        path="",
        variable=None,
        model=Settings,
        fields=plain,
    )
    return [top, *found]


def _of(
    model: type[BaseModel], title: str, path: str, variable: str | None
) -> Iterator[Section]:
    yield Section(
        title=f"`{title}`",
        path=path,
        variable=variable,
        model=model,
        fields=model.model_fields,
    )
    for name, field in model.model_fields.items():
        origin = typing.get_origin(field.annotation)
        for argument in (field.annotation, *typing.get_args(field.annotation)):
            if (inner := _model(argument)) is None:
                continue
            below = _join(path, name)
            if origin is list:
                yield from _of(inner, f"[[{below}]]", below, None)
            else:
                own, named = f"{variable}__{name.upper()}", ""
                if origin is dict:
                    own, named = f"{own}__NAME", ".NAME"
                yield from _of(inner, f"{title[:-1]}.{name}{named}]", below, own)


def _model(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _render_section(section: Section) -> str:
    about = "" if section.model is Settings else f"{getdoc(section.model)}\n"
    rows = "".join(
        f"| `{name}` | {_type(field.annotation, field)} | {_default(field)} | "
        f"{_variable(section, name)} | {_meaning(field)} |\n"
        for name, field in section.fields.items()
    )
    return (
        f"\n## {section.title}\n\n{about}"
        + ("\n" if about else "")
        + "| key | type | default | environment | meaning |\n"
        + "|---|---|---|---|---|\n"
        + rows
    )


def _variable(section: Section, name: str) -> str:
    if section.model is Settings:
        return f"`{ENVIRONMENT_PREFIX}{name.upper()}`"
    if section.variable is None:
        return "the whole list, as JSON"
    return f"`{section.variable}__{name.upper()}`"


def _meaning(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|")


def _type(annotation: object, field: FieldInfo | None = None) -> str:
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        arguments, origin = tuple(annotation), typing.Literal
    if origin is typing.Literal:
        return " or ".join(f'`"{each}"`' for each in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(
            _type(each) for each in arguments if each is not types.NoneType
        )
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is list:
        # "list of texts", "list of lists of values"
        listed, *rest = _type(arguments[0]).split(" of ", maxsplit=1)
        noun, comma, never = listed.partition(",")
        return " of ".join(["list", f"{noun}s{comma}{never}", *rest])
    if origin is dict:
        noun, comma, never = _type(arguments[1]).partition(",")
        return f"table of {noun}s by name{comma}{never}"
    if _model(annotation) is not None:
        return "table"
    bounds = []
    for bound, words, strictest in _BOUNDS:
        given = [
            getattr(each, bound, None) for each in (field.metadata if field else ())
        ]
        if numbers := [each for each in given if isinstance(each, int)]:
            bounds.append(f"{words} {strictest(numbers)}")
    return ", ".join([_NAMES[annotation], *bounds])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value: object = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "as below"
    return "none" if value is None else f"`{json.dumps(value, default=_text)}`"


def _text(value: object) -> str:
    # A secret's own text hides it.
    return format_duration(value) if isinstance(value, timedelta) else str(value)


if __name__ == "__main__":
    print(render(), end="")
