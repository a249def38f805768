"""The text of a runbook: Markdown in one form, read into its inputs and steps."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
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
_BLOCK = re.compile(r"^(```+|~~~+)(\w*)[^\n`]*\n(.*?)^\1 *$", re.M | re.S)
_LOOSE = re.compile(r"^ *(```|~~~)", re.M)
_REHEARSE = re.compile(r"^Rehearse every ([1-9]\d*) days\.$", re.M)
_STEP = re.compile(r"(\d+)\. (\S.*)")
_TABLE = re.compile(
    r"^\| *input *\| *type *\| *what it is *\| *default *\|\n\|[-:| ]+\|\n", re.M
)
_TABLE_LIKE = re.compile(r"^\| *input", re.M | re.I)
_CELL = r" *((?:\\\||[^|])*?) *\|"
_ROW = re.compile(rf"\| *`([a-z][a-z0-9_]*)` *\|{_CELL * 3}")
_LINE = re.compile(r"^.*\S.*$", re.M)
_DESTROYS, _ONLY_IF, _PROOF = "Destroys:", "Only if:", "Proof:"
_LABEL = f"^(?:{_DESTROYS}|{_ONLY_IF}|{_PROOF})"
_LABELLED = re.compile(rf"({_LABEL})((?:.|\n(?!\n|{_LABEL}))*)", re.M)
_VARIABLE = re.compile(r"`?\$([a-z][a-z0-9_]*)`?")


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
    title: str
    days: int
    sections: dict[str, str]
    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    proof: str
    digest: str


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
    return _Form(path, text).runbook(hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class _Part:
    """What stands under a head, with it, from one place in the text to another."""

    title: str
    start: int
    end: int


class _Form:
    """The text of a file, and its prose: the same with blanks in place of blocks."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = "\n".join(text.splitlines()) + "\n"
        self._blocks = [*_BLOCK.finditer(self._text)]
        self._prose = _BLOCK.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), self._text)

    def _fail(self, place: int, what: str) -> NoReturn:
        line = self._text.count("\n", 0, place) + 1
        raise UsageError(
            f"{self._path}:{line}: {what}",
            hint="docs/runbooks.md describes the form of a runbook.",
        )

    def runbook(self, digest: str) -> Runbook:
        if loose := _LOOSE.search(self._prose):
            self._fail(loose.start(), "a block must begin at the margin, and end")
        titles = self._parts(1, _Part("", 0, len(self._text)))
        if not titles or titles[0].start or titles[1:]:
            self._fail(
                titles[1].start if titles[1:] else 0,
                "the first line must be the title, as in `# Title`, and the only one",
            )
        sections = self._sections(titles[0])
        rehearse = _REHEARSE.search(self._prose, 0, sections[SECTIONS[0]].start)
        if rehearse is None:
            self._fail(0, "below the title, `Rehearse every 90 days.` is missing")
        inputs = self._inputs(sections["Decide"])
        last = sections["Proof that it worked"]
        proofs = self._commands(last)
        if len(proofs) != 1:
            self._fail(last.start, "this section needs one `sh` block")
        return Runbook(
            name=self._path.stem,
            title=titles[0].title,
            days=int(rehearse[1]),
            sections={name: self._below(each) for name, each in sections.items()},
            inputs=tuple(inputs.values()),
            steps=tuple(self._steps(sections["Steps"], inputs)),
            proof=proofs[0][3],
            digest=digest,
        )

    def _parts(self, level: int, of: _Part) -> list[_Part]:
        head = re.compile(rf"^{'#' * level} +(\S.*?) *$", re.M)
        heads = [*head.finditer(self._prose, of.start, of.end)]
        ends = [*(each.start() for each in heads), of.end][1:]
        return [_Part(e[1], e.start(), end) for e, end in zip(heads, ends, strict=True)]

    def _below(self, part: _Part) -> str:
        return self._text[part.start : part.end].partition("\n")[2].strip()

    def _sections(self, whole: _Part) -> dict[str, _Part]:
        found = self._parts(2, whole)
        for part, due in zip_longest(found, SECTIONS):
            if part is None:
                self._fail(whole.end - 1, f"## {due} is missing")
            if part.title != due:
                expected = f"## {due}" if due else "the end of the file"
                self._fail(
                    part.start, f"{expected} must come here, not ## {part.title}"
                )
        return dict(zip(SECTIONS, found, strict=True))

    def _inputs(self, decide: _Part) -> dict[str, Input]:
        table = _TABLE.search(self._prose, decide.start, decide.end)
        other = _TABLE_LIKE.search(self._prose, decide.start, decide.end)
        if other and table is None:
            self._fail(other.start(), "needed: | input | type | what it is | default |")
        inputs: dict[str, Input] = {}
        start = table.end() if table else decide.end
        for line in _LINE.finditer(self._prose, start, decide.end):
            row = _ROW.fullmatch(line[0].strip())
            if row is None:
                self._fail(
                    line.start(),
                    "an input is a row | `name` | type | what it is | default |, and "
                    "nothing comes after them",
                )
            name, kind, about, default = (e.replace("\\|", "|") for e in row.groups())
            if name in inputs:
                self._fail(line.start(), f"the input {name} is there twice")
            if kind not in KINDS:
                self._fail(line.start(), f"{kind} must be one of {', '.join(KINDS)}")
            default = default.strip("`")
            made = Input(name=name, kind=kind, about=about, default=default)
            inputs[name] = made
            try:
                if default:
                    check_value(made, default)
            except UsageError as error:
                self._fail(line.start(), f"the default of {error.summary}")
        return inputs

    def _steps(self, steps: _Part, inputs: dict[str, Input]) -> Iterator[Step]:
        parts = self._parts(3, steps)
        if not parts:
            self._fail(steps.start, "there is no step; one begins with `### 1. Title`")
        if early := self._commands(_Part("", steps.start, parts[0].start)):
            self._fail(early[0].start(), "an `sh` block must stand in a step")
        for number, part in enumerate(parts, start=1):
            yield self._step(part, number, inputs)

    def _step(self, part: _Part, number: int, inputs: dict[str, Input]) -> Step:
        title = _STEP.fullmatch(part.title)
        if title is None or int(title[1]) != number:
            self._fail(part.start, f"this step must be called `### {number}. Title`")
        labels: dict[str, re.Match[str]] = {}
        for label in _LABELLED.finditer(self._prose, part.start, part.end):
            if label[1] in labels:
                self._fail(label.start(), f"`{label[1]}` is there twice in one step")
            labels[label[1]] = label
        said = {name: " ".join(each[2].split()) for name, each in labels.items()}
        proof = labels[_PROOF].start() if _PROOF in labels else part.end
        commands = self._commands(_Part("", part.start, proof))
        proofs = self._commands(_Part("", proof, part.end))
        if commands[1:]:
            self._fail(
                commands[1].start(),
                "a step has one `sh` block, and one more below `Proof:`",
            )
        if _PROOF in labels and (said[_PROOF] or len(proofs) != 1):
            self._fail(proof, "`Proof:` stands alone, above one `sh` block")
        for name in labels.keys() - {_PROOF}:
            if commands and labels[name].start() > commands[0].start():
                self._fail(labels[name].start(), f"`{name}` must stand above the block")
            if not said[name]:
                self._fail(labels[name].start(), f"`{name}` needs words")
        destroys = _VARIABLE.fullmatch(said.get(_DESTROYS, ""))
        if _DESTROYS in said and not (destroys and commands and destroys[1] in inputs):
            self._fail(
                labels[_DESTROYS].start(),
                "`Destroys:` needs an input, as $database, and an `sh` block",
            )
        return Step(
            number=number,
            title=title[2],
            about=self._text[part.start : part.end].strip(),
            command=commands[0][3] if commands else "",
            proof=proofs[0][3] if proofs else "",
            destroys=destroys[1] if destroys else "",
            only_if=said.get(_ONLY_IF, ""),
        )

    def _commands(self, part: _Part) -> list[re.Match[str]]:
        """Return the blocks of a part that are run."""
        blocks = [e for e in self._blocks if part.start <= e.start() < part.end]
        for each in blocks:
            if each[2] in ("", "bash", "console", "shell", "zsh"):
                self._fail(each.start(), "a block that is to be run begins with ```sh")
            if each[2] == "sh" and not each[3].strip():
                self._fail(each.start(), "this `sh` block is empty")
        return [each for each in blocks if each[2] == "sh"]
