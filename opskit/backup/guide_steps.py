"""Steps that the guides of all kinds of sets have in common."""

from __future__ import annotations

from collections.abc import Iterable

from opskit.catalog.manifest import StoredObject
from opskit.crypto import age


def authenticity(backup_id: str) -> str:
    """Return how to see who made a signed set; the key is not in the set itself."""
    return f"""
`manifest.json` is signed. With the public key of whoever made it in a file
`allowed_signers`, as one line `opskit ssh-ed25519 AAAA...`, this must say "Good":

    ssh-keygen -Y verify -f allowed_signers -I opskit -n opskit \\
        -s manifest.json.sig <manifest.json

Then `backup_id` in it must be `{backup_id}`, and the digests below those of its
`objects`.
"""


def checksums(objects: Iterable[StoredObject]) -> str:
    """Return the lines that `sha256sum --check` reads."""
    return "\n".join(
        f"{each.sha256}  {each.key.rpartition('/')[2]}" for each in objects
    )


def decryption(names: Iterable[str]) -> str:
    """Return the step that makes plain files of encrypted ones."""
    commands = "\n".join(
        f'age --decrypt --identity "${{AGE_IDENTITY:?}}" \\\n'
        f"    --output {name.removesuffix(age.SUFFIX)} {name}"
        for name in names
        if name.endswith(age.SUFFIX)
    )
    return f"""
Decrypt them. `AGE_IDENTITY` names the file with the private key (of age, or of SSH):

```sh
{commands}
```
"""
