"""What the actions for artifacts do, with a folder in place of GitHub's storage."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import sys
from pathlib import Path


def matched() -> dict[Path, Path]:
    """Return the files that match, each with what it is called in the artifact.

    As the action has it: relative to what all patterns have in common, up to the
    first one with a wildcard.
    """
    patterns = os.environ["PATTERNS"].split()
    files = [
        Path(each).absolute()
        for pattern in patterns
        for found in glob.glob(pattern, recursive=True)
        for each in ([found] if os.path.isfile(found) else glob.glob(f"{found}/**", recursive=True))
        if os.path.isfile(each)
    ]  # fmt: skip
    bases = [Path(pattern.split("*")[0]).absolute() for pattern in patterns]
    base = Path(os.path.commonpath(bases))
    if not base.is_dir():
        base = base.parent
    return {file: file.relative_to(base) for file in files}


def main() -> int:
    """Do what is asked, and say it."""
    kept = Path(os.environ["ACT_ARTIFACTS"])
    if sys.argv[1] == "download":
        folder = kept / os.environ["ARTIFACT"]
        if not folder.is_dir():
            return _fail(f"there is no artifact {folder.name}")
        shutil.copytree(folder, os.environ["TO"], dirs_exist_ok=True)
        return 0
    files = matched()
    print(f"{sys.argv[1]}: {len(files)} files")
    if sys.argv[1] == "upload":
        if not files:
            print("::warning::No files were found")
        for file, name in files.items():
            path = kept / os.environ["ARTIFACT"] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, path)
        return 0
    with (kept / "attested").open("a") as attested:
        for file in files:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            attested.write(f"{digest}  {file.name}\n")
    return 0 if files else _fail("there is nothing to attest")


def _fail(words: str) -> int:
    print(f"::error::{words}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
