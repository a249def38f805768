"""The defects of the example service, and the document about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.defects import document, record
from tests.defects.defect import copy
from tests.defects.registry import DEFECTS, OTHERS
from tests.service import FOLDER

_DOCUMENT = Path(__file__).parents[2] / "docs" / "probes.md"


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_can_be_planted(name: str, tmp_path: Path) -> None:
    """What it replaces is there exactly once, and the service still compiles."""
    defect = DEFECTS[name]
    copy(tmp_path)
    defect.plant(tmp_path)

    for edit in defect.edits:
        compile((tmp_path / edit.file).read_text(), edit.file, "exec")
    assert defect.edits or defect.settings
    text = (FOLDER / "opskit.toml").read_text()
    assert [each for each in defect.configuration if each not in text] == []


def test_the_record_is_of_these_defects() -> None:
    """The probe that is there for a defect was among those that failed."""
    recorded = record.read()

    assert [*recorded] == sorted(DEFECTS)
    assert [e.name for e in DEFECTS.values() if e.probe not in recorded[e.name]] == []


def test_every_probe_has_a_defect_of_its_own() -> None:
    """But the one that has a fault found by schemathesis, which takes half a minute."""
    probes = {
        each.name for several in document.explained().values() for each in several
    }
    strained = {each.probe for each in OTHERS.values()}
    own = {each.probe for each in DEFECTS.values()} | strained

    assert probes - own == {"input.openapi"}
    assert "input.openapi" in record.read()["invalid-is-an-error"]
    assert not {*DEFECTS} & {*OTHERS}


def test_the_document_is_as_the_probes_and_the_record_are() -> None:
    """`python -m tests.defects.document >docs/probes.md` writes it."""
    assert _DOCUMENT.read_text() == document.render()
