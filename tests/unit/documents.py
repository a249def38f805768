"""What the documents hold: blocks of code, inline code, headings, calls of commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    path
    for folder in (".", "docs", "runbooks", "examples/service", "benchmarks")
    for path in sorted((ROOT / folder).glob("*.md"))
]
WORKFLOWS = sorted(
    path
    for folder in ("workflows", ".github/workflows")
    for path in (ROOT / folder).glob("*.yml")
)
# What users copy beside the documents.
COPIED = [
    *WORKFLOWS,
    *sorted((ROOT / "docs" / "systemd").iterdir()),
    *sorted((ROOT / "examples").glob("*/*.toml")),
    *sorted((ROOT / "examples").glob("*/*.conf")),
    ROOT / "Containerfile",
]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_COMMENT = re.compile(r"(?:^|\s)#.*$", re.MULTILINE)
# What cron, systemd and a shell inside another command run.
_CRONTAB = re.compile(r"^(?:[\d*/,-]+\s+){5}(.+)$", re.MULTILINE)
_UNIT = re.compile(r"^Exec\w+=(.+)$", re.MULTILINE)
_INSIDE = re.compile(r"\$\(([^()]*)\)")
_SEPARATORS = "();<>|&\n"
_ASSIGNMENT = re.compile(r"\w+=.*", re.DOTALL)
_BEFORE_A_COMMAND = frozenset(
    ["!", "{", "if", "then", "elif", "else", "while", "until", "do", "exec", "sudo"]
)
_PROGRAMS = ("inv", "invoke", "opskit")


def name_of(path: Path) -> str:
    """Return how a test names a file."""
    return str(path.relative_to(ROOT))


def prose(text: str) -> str:
    """Return a document without its blocks of code."""
    return FENCE.sub("", text)


def headings(text: str) -> list[str]:
    """Return a document's headings in their order."""
    return _HEADING.findall(prose(text))


def calls(script: str) -> list[list[str]]:
    """Return the arguments of each call of `inv`, `opskit` or `invoke` in a shell script."""
    plain = _COMMENT.sub("", script.replace("\\\n", " "))
    found = [call for inner in _INSIDE.findall(plain) for call in calls(inner)]
    lexer = shlex.shlex(
        _INSIDE.sub("value", plain), posix=True, punctuation_chars=_SEPARATORS
    )
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    lexer.commenters = ""
    for is_separator, words in groupby(
        lexer, lambda word: word[:1] in tuple(_SEPARATORS)
    ):
        command = list(words)
        while command and (
            command[0] in _BEFORE_A_COMMAND or _ASSIGNMENT.fullmatch(command[0])
        ):
            command.pop(0)
        if not is_separator and command and Path(command[0]).name in _PROGRAMS:
            found.append(command[1:])
    return found


def scripts(path: Path) -> list[str]:
    """Return the shell commands that a document or a file for users holds."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yml":
        return list(_steps(yaml.safe_load(text)))
    return [
        *(body for language, body in FENCE.findall(text) if language == "sh"),
        *(
            code
            for code in INLINE.findall(prose(text))
            if re.match(r"\S*\b(inv|invoke|opskit)\b", code)
        ),
        *_CRONTAB.findall(text),
        *_UNIT.findall(text),
    ]


def _steps(workflow: dict[str, Any]) -> Iterator[str]:
    for job in workflow["jobs"].values():
        yield from (each["run"] for each in job.get("steps", ()) if "run" in each)


def quoted_calls(path: Path) -> list[list[str]]:
    """Return the calls of opskit in a document or a file for users."""
    return [call for script in scripts(path) for call in calls(script)]
