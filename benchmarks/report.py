"""The results of a run as files, and those that the repository keeps."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.options import Options, Part
from benchmarks.user import ROOT

README = ROOT / "benchmarks" / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
_KIB = 1024


def write(out: Path, options: Options, parts: Sequence[Part]) -> None:
    """Write `results.md`, a Markdown file and a JSON file for each part, pictures."""
    machine = describe(options)
    for part in parts:
        shown = "".join(f"\n![{each}](results/{each}.svg)\n" for each in part.pictures)
        # Without its heading: the README has one of its own there.
        body = part.text.partition("\n\n")[2]
        (out / f"{part.name}.md").write_text(f"{body}{shown}\n{machine}\n")
        (out / f"{part.name}.json").write_text(
            json.dumps({"machine": machine, part.name: part.data}, indent=1) + "\n"
        )
        for name, picture in part.pictures.items():
            (out / f"{name}.svg").write_text(picture)
    (out / "results.md").write_text(
        "\n".join(part.text for part in parts) + f"\n{machine}\n"
    )


def describe(options: Options) -> str:
    """Return one paragraph: when, how large, how often, on what."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"*Measured on {datetime.now(UTC):%Y-%m-%d}: {options.size_mb:g} MB, "
        f"{options.rounds} rounds, {options.jobs} jobs, on {os.cpu_count()} processors "
        f"with {memory_bytes / _KIB**3:.0f} GiB of memory.*"
    )


def update(out: Path, names: Sequence[str]) -> None:
    """Put the parts that were run into the README and the pictures beside it."""
    RESULTS.mkdir(exist_ok=True)
    text = README.read_text(encoding="utf-8")
    for name in names:
        text = with_part(text, name, (out / f"{name}.md").read_text(encoding="utf-8"))
        shutil.copy(out / f"{name}.json", RESULTS)
    for picture in sorted(out.glob("*.svg")):
        shutil.copy(picture, RESULTS)
    README.write_text(text, encoding="utf-8")


def with_part(text: str, name: str, part: str) -> str:
    """Return a document with what stands between the marks of a part replaced.

    Raises:
        ValueError: it has no such marks.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the document has no place for {name}")
    return pattern.sub(lambda _found: f"{begin}\n{part}\n{end}", text)
