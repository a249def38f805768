"""Records of entries: what they hold, and which paths they take."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from opskit.catalog.file_record import FileRecord, is_beneath, listed, shown

RECORD = {"type": "file", "mode": 0o644, "uid": 0, "gid": 0, "mtime_ns": -1}


@pytest.mark.parametrize("path", ["a\udcff", "new\nline", "é/-x", ".", "...", "a b"])
def test_a_record_survives_its_way_through_json(path: str) -> None:
    """Odd names come back as they were, as bytes that are no UTF-8 do."""
    record = FileRecord.model_validate(RECORD | {"path": path, "target": path})
    stored = json.dumps(record.model_dump(mode="json"), ensure_ascii=False).encode(
        "utf-8", "surrogateescape"
    )
    read = json.loads(stored.decode("utf-8", "surrogateescape"))

    assert FileRecord.model_validate(read) == record


@pytest.mark.parametrize(
    "path", ["", "/", "/etc/passwd", "..", "../a", "a/..", "a/../b", "a//b", "./a", "a/.", "a/", "a\0b"]
)  # fmt: skip
def test_a_path_that_may_lead_out_is_refused(path: str) -> None:
    """A manifest that names such an entry was altered."""
    with pytest.raises(ValidationError):
        FileRecord.model_validate(RECORD | {"path": path})

    assert not is_beneath(path)


@pytest.mark.parametrize(
    "fault",
    [{"type": "device"}, {"mode": 0o10000}, {"sha256": "abc"}, {"size_bytes": -1}],
)
def test_an_impossible_record_is_refused(fault: dict[str, object]) -> None:
    """Each field has its bounds."""
    with pytest.raises(ValidationError):
        FileRecord.model_validate(RECORD | {"path": "a"} | fault)


def test_odd_names_are_shown_on_one_line() -> None:
    """A message holds no line break and no byte that is no text."""
    assert shown("a b é") == "a b é"
    assert shown("new\nline\udcff") == "'new\\nline\\udcff'"


def test_a_list_in_a_message_is_short() -> None:
    """The first five are named, and the number of the others."""
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
