"""Digest of large objects: of their numbers and contents, in any order."""

from __future__ import annotations

from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from opskit.postgres.archive.digest import LargeObjectDigest, LargeObjectsDigest
from tests.unit.pieces import cut

Objects = list[tuple[int, bytes]]
_oids = st.integers(min_value=1, max_value=2**32 - 1)
_objects = st.dictionaries(_oids, st.binary(max_size=30), max_size=6).map(
    lambda found: list(found.items())
)


def _digest(objects: Objects) -> LargeObjectsDigest:
    digest = LargeObjectDigest()
    for oid, content in objects:
        digest.begin(oid)
        digest.update(content)
        digest.end()
    return digest.result()


@given(_objects)
def test_number_and_size_are_counted(objects: Objects) -> None:
    """The digest comes with the number of objects and their size in bytes."""
    found = _digest(objects)

    assert found.count == len(objects)
    assert found.size_bytes == sum(len(content) for _oid, content in objects)


def test_the_digest_never_changes_its_meaning() -> None:
    """Digests of older sets must be what they were when those were taken."""
    assert _digest([]).digest == "0" * 32
    assert _digest([(16384, b"abc"), (7, b"")]).digest == (
        "a3c875a3ed8cf14194aea1b5fbd8d0c6"
    )


@given(_objects, st.randoms(use_true_random=False))
def test_any_order_gives_one_digest(objects: Objects, random: Random) -> None:
    """The order in which the objects come is no part of them."""
    shuffled = list(objects)
    random.shuffle(shuffled)

    assert _digest(shuffled) == _digest(objects)


@given(_objects, _objects)
def test_other_objects_give_another_digest(one: Objects, other: Objects) -> None:
    """Numbers and contents decide, and nothing else."""
    same = _digest(one).digest == _digest(other).digest

    assert same == (sorted(one) == sorted(other))


@given(_oids, _oids, st.binary(max_size=9), st.binary(max_size=9))
def test_swapped_contents_are_noticed(
    first: int, second: int, one: bytes, other: bytes
) -> None:
    """Two objects with each other's content are other objects."""
    assume(first != second)
    assume(one != other)

    assert _digest([(first, one), (second, other)]) != _digest(
        [(first, other), (second, one)]
    )


@given(_oids, _oids, st.binary(min_size=1, max_size=9))
def test_bytes_moved_to_another_object_are_noticed(
    first: int, second: int, content: bytes
) -> None:
    """The same bytes divided otherwise between two objects are other objects."""
    assume(first != second)

    assert _digest([(first, content), (second, b"")]) != _digest(
        [(first, content[:-1]), (second, content[-1:])]
    )


@given(_oids, st.binary(max_size=40), st.data())
def test_pieces_do_not_matter(oid: int, content: bytes, data: st.DataObject) -> None:
    """However the content is cut into pieces, the digest is the same."""
    digest = LargeObjectDigest()
    digest.begin(oid)
    for piece in cut(data, content):
        digest.update(piece)
    digest.end()

    assert digest.result() == _digest([(oid, content)])


def test_an_object_without_its_end_is_not_in_the_digest() -> None:
    """What has begun and not ended does not add to the digest."""
    digest = LargeObjectDigest()
    digest.begin(1)
    digest.update(b"abc")

    assert digest.result().digest == "0" * 32
