"""Places of data, as a real pg_dump notes them and a real pg_restore uses them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from opskit.catalog.reader import SetReader
from opskit.postgres.archive import toc
from opskit.postgres.archive.places import ArchivePlaces
from opskit.postgres.parameters import client_connection, client_environment
from opskit.postgres.servers import programs
from opskit.restore.unpack import unpack_dump
from tests.conftest import MakeDatabase
from tests.sample import SAMPLE
from tests.support import back_up, sets

_PLACE_BYTES = len(toc.place(0))
_MORE = """
SELECT pg_catalog.lo_from_bytea(0, '\\x00');
CREATE TABLE public."no columns" ();
INSERT INTO public."no columns" DEFAULT VALUES;
CREATE TABLE public.wide (id int, text text);
INSERT INTO public.wide SELECT i, repeat('wide ', 100000) FROM generate_series(1, 3) i;
"""


def _places(archive: Path) -> dict[int, bytes]:
    content, contents = archive.read_bytes(), toc.read(archive)
    return {
        dump_id: content[span.place : span.place + _PLACE_BYTES]
        for dump_id, span in contents.layout.spans.items()
    }


@pytest.mark.parametrize("major", [15, 16, 18])
def test_the_places_are_those_of_pg_dump(
    make_database: MakeDatabase, tmp_path: Path, major: int
) -> None:
    """What was dumped to a pipe is told what pg_dump notes in a file by itself."""
    url = make_database(major, SAMPLE + _MORE)
    found = programs.find_client(programs.installations(), server_major=major)
    command = [found.program("pg_dump"), "-Fc", "-Z0", "-d", client_connection(url)]
    environment = client_environment(url)
    in_file, piped = tmp_path / "in a file", tmp_path / "piped"
    subprocess.run([*command, "-f", in_file], env=environment, check=True)
    # To a file that is a standard output it could go back as well.
    dump = subprocess.run(command, env=environment, check=True, capture_output=True)
    piped.write_bytes(dump.stdout)
    unknown = _places(piped)
    places = ArchivePlaces()
    places.feed(dump.stdout)
    places.write(piped)

    assert len(unknown) > 5
    assert not set(unknown.items()) & set(_places(in_file).items())
    assert _places(piped) == _places(in_file)


def test_a_set_is_unpacked_with_its_places(
    make_database: MakeDatabase, store_dir: Path, tmp_path: Path
) -> None:
    """What pg_restore gets for a drill or a restore names a place for all data."""
    back_up(make_database(16, SAMPLE + _MORE), store_dir)
    (one_set,) = sets(store_dir)
    archive = tmp_path / "archive"
    reader = SetReader(manifest=one_set.manifest, store=one_set.stores[0])
    unpack_dump(reader, archive)

    known = toc.place(0)[:1]
    assert {place[:1] for place in _places(archive).values()} == {known}
