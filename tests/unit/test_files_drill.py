"""Drills of directories: what is equal passes, what is not fails, mutants are noticed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from opskit.catalog.file_record import FileRecord
from opskit.checks import Check
from opskit.drill.folder import drill_copy
from opskit.drill.report import DrillRecord
from opskit.folders.copy import compare
from opskit.mutants import folders
from opskit.mutants.folders import KINDS, Ground, Planted
from tests.unit.conftest import Unprivileged
from tests.unit.files_sets import IS_ROOT, Dumped, dump, make_odd


@pytest.fixture(scope="module")
def dumped(tmp_path_factory: pytest.TempPathFactory) -> Dumped:
    """The archive of a directory with every kind of entry."""
    return dump(make_odd(tmp_path_factory.mktemp("odd") / "state"))


def _drill(dumped: Dumped, work_dir: Path, **options: Any) -> DrillRecord:
    return drill_copy(
        dumped.opener,
        dumped.records,
        **{"run_id": "abc", "mutants": 0, "work_dir": work_dir, **options},
    )


def _failed(found: DrillRecord) -> list[str]:
    return [check.name for check in found.checks if not check.passed]


def test_an_equal_copy_passes(dumped: Dumped, tmp_path: Path) -> None:
    """The drill says what it compared and how long it took, and leaves nothing."""
    found = _drill(dumped, tmp_path)

    assert [check.name for check in found.checks] == ["restore", "files"]
    assert _failed(found) == []
    assert list(found.phases) == ["restore", "compare"]
    assert found.files == len(dumped.records)
    assert found.mutants is None
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_damage_is_planted_and_noticed(
    dumped: Dumped, tmp_path: Path
) -> None:
    """No mutant survives, and each is taken back before the next."""
    found = _drill(dumped, tmp_path, mutants=3 * len(KINDS))
    assert found.mutants is not None
    kinds = {each.kind for each in found.mutants.planted}

    assert _failed(found) == []
    assert kinds == set(KINDS) - (set() if IS_ROOT else {"owner changed"})
    assert len(found.mutants.planted) == 3 * len(KINDS)
    assert found.mutants.killed == len(found.mutants.planted)
    assert found.mutants.refused == ()


_ROOTS_WITHOUT_THE_RIGHT = {
    "no capability": ["setpriv", "--bounding-set", "-chown", "--"],
    "no such user": ["unshare", "--user", "--map-root-user", "--"],
}
# Extracts an archive, compares the copy, plants mutants in it and prints what it found.
_DRILL = """\
import json, pickle, sys
from pathlib import Path
from opskit.drill.folder import drill_copy
dumped = pickle.loads(Path(sys.argv[1]).read_bytes())
found = drill_copy(
    dumped.opener, dumped.records,
    run_id="abc", mutants=int(sys.argv[3]), work_dir=Path(sys.argv[2]),
)
print(json.dumps({
    "checks": [each.as_json() for each in found.checks],
    "kinds": sorted({each.kind for each in found.mutants.planted}),
}))
"""


@pytest.mark.skipif(not IS_ROOT, reason="only root has files of others")
@pytest.mark.parametrize("kind", _ROOTS_WITHOUT_THE_RIGHT)
def test_root_that_may_not_set_owners_can_drill_files_of_others(
    tmp_path: Path, kind: str
) -> None:
    """The owners are not compared, which the check says, and no mutant changes one."""
    command = _ROOTS_WITHOUT_THE_RIGHT[kind]
    tried = shutil.which(command[0]) and subprocess.run([*command, "true"], check=False)
    if not tried or tried.returncode:
        pytest.skip(f"{command[0]} cannot be used here")
    folder, archive, work = (tmp_path / name for name in ("state", "archive", "work"))
    made = make_odd(folder)
    os.chown(made / "plain", 1000, 1000)
    work.mkdir()
    archive.write_bytes(pickle.dumps(dump(made)))

    output = subprocess.run(
        [*command, sys.executable, "-c", _DRILL, archive, work, str(3 * len(KINDS))],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    ).stdout
    found = json.loads(output.splitlines()[-1])

    assert [each["detail"] for each in found["checks"] if not each["passed"]] == []
    details = " ".join(each["detail"] for each in found["checks"])
    _before, _said, owners = details.partition("not set the owner, which was not ")
    assert "plain" in owners
    assert set(found["kinds"]) == set(KINDS) - {"owner changed"}


def test_the_same_run_plants_the_same_mutants(dumped: Dumped, tmp_path: Path) -> None:
    """A drill can be run again; another run damages other things."""
    first, again, other = (
        _drill(dumped, tmp_path, mutants=12, run_id=run_id).mutants
        for run_id in ("one", "one", "two")
    )

    assert first == again
    assert first != other


def test_an_empty_directory_has_something_to_damage(tmp_path: Path) -> None:
    """The directory itself has a mode and a time, and something can be added."""
    (tmp_path / "state").mkdir()
    (tmp_path / "work").mkdir()
    found = _drill(dump(tmp_path / "state"), tmp_path / "work", mutants=3)
    assert found.mutants is not None

    assert _failed(found) == []
    assert len(found.mutants.planted) == 3


@pytest.mark.parametrize(
    "blind", ["sha256", "mode", "mtime_ns", "target", "type", "uid"]
)
def test_a_comparison_that_is_blind_lets_a_mutant_survive(
    dumped: Dumped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: str
) -> None:
    """The mutants are there to find a comparison that does not look."""

    def half_blind(
        target: Path,
        records: Sequence[FileRecord],
        *,
        known: Mapping[str, str] | None = None,
    ) -> list[Check]:
        found = compare(target, records, known=known)
        return [each for each in found if f"{blind}: " not in each.detail]

    if blind == "uid" and not IS_ROOT:
        pytest.skip("only root restores owners")
    monkeypatch.setattr(folders, "compare", half_blind)
    found = _drill(dumped, tmp_path, mutants=4 * len(KINDS))
    assert found.mutants is not None

    assert found.mutants.survivors
    assert "mutants" in _failed(found)


def test_a_mutant_that_is_not_taken_back_is_a_failed_check(
    dumped: Dumped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutants that lie on top of each other prove nothing."""

    @contextmanager
    def lasting(ground: Ground, record: FileRecord) -> Iterator[Planted]:
        with open(ground.place("lasting"), "wb"):
            yield "lasting", ()

    monkeypatch.setattr(folders, "KINDS", {"lasting": lasting})
    found = _drill(dumped, tmp_path, mutants=1)

    assert _failed(found) == ["files", "file .", "file lasting"]


def test_a_damaged_archive_is_a_failed_check(dumped: Dumped, tmp_path: Path) -> None:
    """That the set cannot be restored is what the drill found, not an error."""
    cut = Dumped(dumped.tar[:5000], dumped.records, ())
    found = _drill(cut, tmp_path, mutants=5)

    assert _failed(found) == ["restore"]
    assert found.mutants is None
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_differs_is_a_failed_check(tmp_path: Path) -> None:
    """The entry is named, and no mutants are needed to show that it can fail."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "a").write_text("content")
    (tmp_path / "work").mkdir()
    made = dump(folder)
    damaged = Dumped(made.tar.replace(b"content", b"CONTENT"), made.records, ())
    found = _drill(damaged, tmp_path / "work", mutants=5)

    assert _failed(found) == ["files", "file a"]
    assert found.mutants is None


def test_an_ordinary_user_can_drill_what_its_modes_protect(
    shared_path: Path, unprivileged: Unprivileged
) -> None:
    """What cannot be damaged is left alone, and nothing is left behind."""
    with unprivileged():
        closed = shared_path / "state" / "closed"
        closed.mkdir(parents=True)
        for name in ("a", "b"):
            (closed / name).write_text(name)
            (closed / name).chmod(0o400)
        (closed / "link").symlink_to("/")
        closed.chmod(0o500)
        work = shared_path / "work"
        work.mkdir()
        found = _drill(dump(shared_path / "state"), work, mutants=20)
        assert found.mutants is not None

    assert _failed(found) == []
    assert found.mutants.planted
    assert "byte flipped" in found.mutants.refused
    assert list(work.iterdir()) == []
