"""Reports: the signed record of what a run has shown, here and in the stores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from opskit import files
from opskit.catalog.documents import REPORTS_FOLDER, document_bytes, store_document
from opskit.errors import StoreError
from opskit.log import mask, masked
from opskit.operations import keys
from opskit.operations.outcome import Record, not_recorded
from opskit.operations.run import Run


def keep(
    run: Run, name: str, document: Mapping[str, object], text: str, record: Record
) -> Path:
    """Write a report and its document, name it in the ledger; return the path.

    In the stores that are configured the document is signed, if a key is. A store that
    does not take them is an error of the record, and the others have them all the same.
    """
    record.details["report"] = name
    signed = masked(dict(document)) | {"name": name, "run_id": run.run_id}
    content = mask(text).encode("utf-8", "surrogateescape")
    path = run.reports / f"{name}.md"
    files.write_atomically(path, [content])
    files.write_atomically(path.with_suffix(".json"), [document_bytes(signed)])
    keys.warn_of_unsigned(run.settings)
    place = f"{REPORTS_FOLDER}{run.ledger.id}/{name}"
    for store in run.stores if run.settings.stores else ():
        try:
            store.put(f"{place}.md", [content])
            store_document(store, f"{place}.json", signed, run.protection.signer)
        except StoreError as error:
            record.details["not_stored"] = error.message
            record.report(not_recorded(error))
    return path
