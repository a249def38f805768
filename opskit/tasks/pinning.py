"""`pin`: retention keeps a set until its pin is removed."""

from __future__ import annotations

from opskit.tasks.command import Document, command, say


@command(
    help={
        "backup": "the set to keep: its ID, the beginning of it, or latest",
        "remove": "remove the pin; retention decides about the set again",
        "json": "print one JSON document",
    },
    required=["backup"],
)
def pin(
    _context: object, backup: str = "", remove: bool = False, json: bool = False
) -> Document:
    """Keep a backup set, whatever the retention rules say, until the pin is removed.

    Example: inv pin --backup shop-20260101T030000Z-a1b2c3
    """
    from opskit.catalog import prune
    from opskit.operations import keys
    from opskit.operations import run as runtime

    run = runtime.start()
    if not remove:
        # A pin that does not count must not be reported as one.
        keys.require_own_trust(run.settings, what="the pin")
    chosen = run.catalog(whole=True).find(backup)
    backup_id = chosen.manifest.backup_id
    details = {"source": chosen.manifest.source, "backup_id": backup_id}
    # Whatever prunes this set now leaves it alone, and looks for pins afterwards.
    with run.ledgered("unpin" if remove else "pin", details), run.reading(backup_id):
        if remove:
            changed = prune.unpin(chosen)
        elif changed := not all(copy.is_pinned for copy in chosen.copies):
            prune.pin(
                chosen,
                pinned_at=runtime.now(),
                run_id=run.run_id,
                signer=run.protection.signer,
            )
    state = "not pinned" if remove else "pinned"
    say(f"{backup_id} is {state}{'' if changed else ' already'}", as_json=json)
    return {
        "status": "ok",
        "backup_id": backup_id,
        "pinned": not remove,
        "changed": changed,
        "stores": [store.name for store in chosen.stores],
    }
