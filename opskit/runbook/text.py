"""The text of a runbook: Markdown in one form, read into its inputs and steps."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from opskit.errors import UsageError
from opskit.runbook.inputs import KINDS, Input, check_value

SECTIONS = (
    "Symptom",
    "Impact",
    "Decide",
    "Steps",
    "Proof that it worked",
    "If it did not",
    "Afterwards",
)
_HEAD = ["input", "type", "what it is", "default"]
_REHEARSE = re.compile(r"Rehearse every ([1-9]\d*) days\.")
_STEP = re.compile(r"### (\d+)\. (\S.*)")
_FENCE = re.compile(r"( *)(`{3,}|~{3,}) *([^`]*)")
_INPUT_NAME = re.compile(r"`([a-z][a-z0-9_]*)`")
_VARIABLE = re.compile(r"`?\$([a-z][a-z0-9_]*)`?")
_CELL_END = re.compile(r"(?<!\\)\|")
_DESTROYS, _ONLY_IF, _PROOF = _LABELS = ("Destroys:", "Only if:", "Proof:")
# The language of a block that looks as if it were to be run, and would not be.
_MISTAKEN = {"", "bash", "console", "shell", "zsh"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: a command and its proof; without a command it is done by hand.

    `about` is the whole of it, in Markdown. It destroys what the input `destroys`
    names. With `only_if` it is not always needed.
    """

    number: int
    title: str
    about: str
    command: str = ""
    proof: str = ""
    destroys: str = ""
    only_if: str = ""

    @property
    def name(self) -> str:
        """What the step is called: its number and its title."""
        return f"{self.number}. {self.title}"


@dataclass(frozen=True, kw_only=True)
class Runbook:
    """A runbook: `sections` hold their texts, `proof` says whether it worked.

    It is to be rehearsed every so many `days`; `digest` is that of the file.
    """

    name: str
    path: Path
    title: str
    days: int
    sections: dict[str, str]
    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    proof: str
    digest: str


@dataclass(frozen=True)
class _Part:
    """A line of prose, or a whole block with its language and what is in it."""

    number: int
    text: str
    language: str | None = None
    code: str = ""


class _FormError(Exception):
    def __init__(self, number: int, what: str) -> None:
        super().__init__(what)
        self.number = number


def read(path: Path) -> Runbook:
    """Read a runbook.

    Raises:
        UsageError: it cannot be read, or does not keep to the form; with the line.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")  # some editors begin with a mark
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            f"the runbook {path} cannot be read: {why}",
            hint="`inv runbook` lists the runbooks.",
        ) from error
    try:
        return _runbook(path, text, hashlib.sha256(content).hexdigest())
    except _FormError as error:
        raise UsageError(
            f"{path}:{error.number}: {error}",
            hint="docs/runbooks.md describes the form of a runbook.",
        ) from error


def _runbook(path: Path, text: str, digest: str) -> Runbook:
    parts = [*_parts(text)]
    if not parts or not parts[0].text.startswith("# "):
        raise _FormError(1, "the first line must be the title, as in `# Title`")
    sections = _sections(parts)
    inputs = _inputs(sections["Decide"])
    steps = tuple(_steps(sections["Steps"], {each.name for each in inputs}))
    proofs = _commands(sections["Proof that it worked"])
    if len(proofs) != 1:
        _fail(sections["Proof that it worked"][0], "this section needs one `sh` block")
    return Runbook(
        name=path.stem,
        path=path,
        title=parts[0].text[2:].strip(),
        days=_days(sections.pop("")),
        sections={name: _text(each[1:]) for name, each in sections.items()},
        inputs=inputs,
        steps=steps,
        proof=proofs[0].code,
        digest=digest,
    )


def _fail(part: _Part, what: str) -> NoReturn:
    raise _FormError(part.number, what)


def _parts(text: str) -> Iterator[_Part]:
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        fence = _FENCE.fullmatch(line)
        if fence is None:
            yield _Part(number, line)
            continue
        language = fence[3].strip()
        if fence[1] and language == "sh":
            raise _FormError(number, "an `sh` block must not be indented")
        inner: list[str] = []
        for _number, each in lines:
            if each.strip() == fence[2]:
                whole = "\n".join((line, *inner, each))
                code = "".join(f"{one}\n" for one in inner)
                yield _Part(number, whole, language, code)
                break
            inner.append(each)
        else:
            raise _FormError(number, "the block that begins here does not end")


def _sections(parts: Sequence[_Part]) -> dict[str, list[_Part]]:
    """Return the parts of each section, its head first; "" is what is before them."""
    sections: dict[str, list[_Part]] = {"": []}
    current = sections[""]
    for part in parts[1:]:
        if part.language is None and part.text.startswith(("# ", "## ")):
            due = [f"## {each}" for each in SECTIONS if each not in sections][:1]
            if [part.text.rstrip()] != due:
                expected = due[0] if due else "the end of the file"
                _fail(part, f"{expected} must come here, not {part.text}")
            current = sections[part.text[3:].rstrip()] = []
        current.append(part)
    for name in SECTIONS:
        if name not in sections:
            _fail(parts[-1], f"## {name} is missing")
    return sections


def _days(parts: Sequence[_Part]) -> int:
    for part in parts:
        if match := _REHEARSE.fullmatch(part.text.strip()):
            return int(match[1])
    raise _FormError(2, "below the title, `Rehearse every 90 days.` is missing")


def _inputs(parts: Sequence[_Part]) -> tuple[Input, ...]:
    rows = [each for each in parts if each.text.strip()]
    heads = [number for number, row in enumerate(rows) if _cells(row) == _HEAD]
    inputs: dict[str, Input] = {}
    for row in rows[heads[0] + 2 :] if heads else ():
        cells = _cells(row)
        if len(cells) != len(_HEAD):
            _fail(row, "this section must end with the table of the inputs")
        made = _input(row, *cells)
        if made.name in inputs:
            _fail(row, f"the input {made.name} is there twice")
        inputs[made.name] = made
    return tuple(inputs.values())


def _input(row: _Part, name: str, kind: str, about: str, default: str) -> Input:
    match = _INPUT_NAME.fullmatch(name)
    if match is None:
        _fail(row, f"{name} must be small letters, digits and _, in backquotes")
    if kind not in KINDS:
        _fail(row, f"the type {kind} must be one of {', '.join(KINDS)}")
    made = Input(name=match[1], kind=kind, about=about, default=default.strip("`"))
    if made.default:
        try:
            check_value(made, made.default)
        except UsageError as error:
            _fail(row, f"the default of {error.summary}")
    return made


def _steps(parts: Sequence[_Part], inputs: set[str]) -> Iterator[Step]:
    starts = [
        number
        for number, part in enumerate(parts)
        if part.language is None and part.text.startswith("### ")
    ]
    if not starts:
        _fail(parts[0], "there is no step; one begins with `### 1. Title`")
    if early := _commands(parts[: starts[0]]):
        _fail(early[0], "an `sh` block must stand in a step")
    for number, (start, end) in enumerate(
        zip(starts, [*starts[1:], len(parts)], strict=True), start=1
    ):
        step = _step(parts[start:end], number)
        if step.destroys and step.destroys not in inputs:
            _fail(parts[start], f"${step.destroys} is not an input of this runbook")
        yield step


def _step(parts: Sequence[_Part], number: int) -> Step:
    head = parts[0]
    match = _STEP.fullmatch(head.text.rstrip())
    if match is None or int(match[1]) != number:
        _fail(head, f"this step must be called `### {number}. Title`")
    labels, blocks = _labels(parts), _commands(parts)
    proof = labels.pop(_PROOF, None)
    before = [each for each in blocks if not proof or each.number < proof.number]
    after = blocks[len(before) :]
    if len(before) > 1:
        _fail(before[1], "a step has one `sh` block, and one more below `Proof:`")
    if proof and (len(after) != 1 or proof.text != _PROOF):
        _fail(proof, "`Proof:` stands alone, above one `sh` block")
    for label, part in labels.items():
        if before and part.number > before[0].number:
            _fail(part, f"`{label}` must stand above the `sh` block")
    destroys = labels.get(_DESTROYS)
    name = _VARIABLE.fullmatch(
        destroys.text[len(_DESTROYS) :].strip() if destroys else ""
    )
    if destroys and not (name and before):
        _fail(destroys, "`Destroys:` needs an input, as $database, and an `sh` block")
    only_if = labels.get(_ONLY_IF, head).text[len(_ONLY_IF) :].strip()
    if _ONLY_IF in labels and not only_if:
        _fail(labels[_ONLY_IF], "`Only if:` needs the condition, in words")
    return Step(
        number=number,
        title=match[2],
        about=_text(parts),
        command=before[0].code if before else "",
        proof=after[0].code if after else "",
        destroys=name[1] if name else "",
        only_if=only_if if _ONLY_IF in labels else "",
    )


def _labels(parts: Sequence[_Part]) -> dict[str, _Part]:
    """Return what each label says: all lines up to an empty one, in one."""
    found: dict[str, _Part] = {}
    current = ""
    for part in parts:
        label = next((each for each in _LABELS if part.text.startswith(each)), "")
        if part.language is not None or not part.text.strip():
            current = ""
        elif label:
            if label in found:
                _fail(part, f"`{label}` is there twice in one step")
            current, found[label] = label, _Part(part.number, part.text.strip())
        elif current:
            text = f"{found[current].text} {part.text.strip()}"
            found[current] = _Part(found[current].number, text)
    return found


def _commands(parts: Sequence[_Part]) -> list[_Part]:
    """Return the blocks that are run."""
    for part in parts:
        if part.language in _MISTAKEN:
            _fail(part, "a block that is to be run begins with ```sh")
        if part.language == "sh" and not part.code.strip():
            _fail(part, "this `sh` block is empty")
    return [each for each in parts if each.language == "sh"]


def _text(parts: Sequence[_Part]) -> str:
    return "\n".join(each.text for each in parts).strip()


def _cells(part: _Part) -> list[str]:
    text = part.text.strip()
    if part.language is not None or not (text.startswith("|") and text.endswith("|")):
        return []
    return [each.strip().replace("\\|", "|") for each in _CELL_END.split(text)[1:-1]]
