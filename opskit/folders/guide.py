"""RESTORE.md of a folder: how to bring it back with stock tools alone.

A test extracts the commands of such a file and runs them: keep every one in a `sh`
block, complete, and free of anything that only this project provides.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from opskit.backup.guide import authenticity, checksums, decryption
from opskit.catalog.file_record import shown
from opskit.catalog.manifest import StoredObject
from opskit.crypto import age


def render(
    *,
    backup_id: str,
    path: Path,
    entries: int,
    content_bytes: int,
    snapshot_at: datetime,
    objects: Sequence[StoredObject],
    encrypted: bool = False,
    signed: bool = False,
) -> str:
    """Return the guide as Markdown; the commands run in the folder of the set.

    `content_bytes` is the size of all files.
    """
    stored = [each.key.rpartition("/")[2] for each in objects]
    archive = next(
        each.key.rpartition("/")[2].removesuffix(age.SUFFIX)
        for each in objects
        if each.role == "files"
    )
    sums = checksums(objects)
    return f"""\
# Restore {backup_id} with stock tools

This is the folder {_code(str(path))} with {entries} entries, as it was
at {snapshot_at:%Y-%m-%dT%H:%M:%SZ}.

{_needs(content_bytes, encrypted=encrypted)}

Run the commands in the folder that holds the files of the set.

## 1. Check that every file is what was stored
{authenticity(backup_id) if signed else ""}
```sh
sha256sum --check <<'SUMS'
{sums}
SUMS
```
{decryption(stored) if encrypted else ""}
{_steps(archive, path, encrypted=encrypted)}
"""


def _needs(content_bytes: int, *, encrypted: bool) -> str:
    age_needed = "`age` with the private key, " if encrypted else ""
    return f"""\
You need:

- {age_needed}`zstd`, `sha256sum` and GNU tar (`bsdtar` reads the archive, too),
- about {max(1, round(content_bytes / 1024**2))} MiB of free space, on a file system
  that keeps owners, modes and links,
- to be root, if the files are to belong to whom they did: what another user unpacks is
  that user's."""


def _steps(archive: str, path: Path, *, encrypted: bool) -> str:
    digests = "" if encrypted else ", with the SHA-256 of each file"
    leftover = " Delete the decrypted files afterwards." if encrypted else ""
    place = shlex.quote(shown(str(path)))
    return f"""\
## 2. Unpack it into a new folder

Names are taken as the bytes that they are, owners as numbers. If tar says nothing and
ends well, the archive was whole.

```sh
mkdir -m 0700 restored
zstd --decompress --stdout {archive} |
    LC_ALL=C tar --extract --file=- --directory=restored --preserve-permissions \\
        --same-owner --numeric-owner --delay-directory-restore \\
        --warning=no-unknown-keyword --warning=no-timestamp
```

As an ordinary user, leave `--same-owner` out.

## 3. Look at it

`manifest.json` lists every entry{digests}.

```sh
find restored | wc -l
du -s restored
```

Then stop the service, move its folder aside and give this one the name:

    mv {place} {place}.before && mv restored {place}

The folder holds the data.{leftover}"""


def _code(text: str) -> str:
    text = shown(text)
    return f"`` {text} ``" if "`" in text else f"`{text}`"
