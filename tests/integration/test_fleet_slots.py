"""The slots of servers and stores: how many jobs use one at once, and who is next."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from opskit.config.stores import StoreSettings
from opskit.fleet import slots
from opskit.fleet.slots import NoSlot
from opskit.operations.schedule import Job, jobs
from tests.conftest import MakeDatabase
from tests.fleets import Fleet
from tests.watching import until


@pytest.fixture
def fleet(make_database: MakeDatabase) -> Fleet:
    """A fleet without workers."""
    made = Fleet(make_database(script="SELECT 1"))
    made.init()
    return made


def _backup(fleet: Fleet, source: str, **own: Any) -> tuple[Any, Job]:
    settings = fleet.settings({source: {"schedule": "0 2 * * *", **own}})
    return settings, jobs(settings)[0]


def test_only_so_many_jobs_use_one_server(fleet: Fleet) -> None:
    """Those of another server go on; what ends makes room."""
    first, second = [slots.take(*_backup(fleet, name)) for name in ("a", "b")]
    with pytest.raises(NoSlot) as none:
        slots.take(*_backup(fleet, "c"))
    elsewhere = slots.take(*_backup(fleet, "d", url="postgresql://other/d"))

    assert none.value.before == 0
    slots.free(first)
    again: list[ExitStack] = []

    def is_taken() -> bool:  # the server may not have ended the first one's session
        with suppress(NoSlot):
            again.append(slots.take(*_backup(fleet, "c")))
        return bool(again)

    until(is_taken)
    for each in (second, elsewhere, *again):
        slots.free(each)


def test_a_job_whose_server_is_full_occupies_no_store(fleet: Fleet) -> None:
    """Its server is asked first; jobs of others would see a full store."""

    def take(name: str) -> ExitStack:
        settings, job = _backup(fleet, name)
        caps = settings.fleet.model_copy(update={"per_store": 2})
        stores = {"local": StoreSettings.model_validate({"url": "file:///tmp/store"})}
        return slots.take(
            settings.model_copy(update={"fleet": caps, "stores": stores}), job
        )

    taken = [take(name) for name in ("a", "b")]

    with pytest.raises(NoSlot) as none:
        take("c")

    assert none.value.before == 0
    for each in taken:
        slots.free(each)


def test_the_slot_of_a_killed_worker_is_free(fleet: Fleet) -> None:
    """It belongs to a session, which ends with its process or its connection."""
    taken = [slots.take(*_backup(fleet, name)) for name in ("a", "b")]
    with pytest.raises(NoSlot):
        slots.take(*_backup(fleet, "c"))

    fleet.ask(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE application_name = 'opskit fleet slots of backup a'"
    )

    again = slots.take(*_backup(fleet, "c"))
    for each in (*taken, again):
        slots.free(each)


def test_a_source_whose_url_cannot_be_read_gets_a_slot(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Its job fails and says why; one that waited for ever would be silent."""
    missing = {"url": "", "url_file": str(tmp_path / "missing")}

    slots.free(slots.take(*_backup(fleet, "a", **missing)))


def _come(fleet: Fleet, number: int) -> int | None:
    """Have a job that was taken ask for its slot; return how many are before it.

    It is put back for an hour then, and None if it got one.
    """
    name = f"job{number}"
    try:
        slots.free(slots.take(*_backup(fleet, name), number))
    except NoSlot as none:
        fleet.ask(
            "UPDATE procrastinate_jobs SET status = 'todo',"
            " scheduled_at = now() + interval '1 hour' WHERE id = %s",
            number,
        )
        return none.before
    fleet.ask(
        "UPDATE procrastinate_jobs SET status = 'succeeded' WHERE id = %s", number
    )
    return None


def test_the_most_urgent_job_that_waits_for_a_server_is_next(fleet: Fleet) -> None:
    """However often each has asked; nobody else is called, and nobody too early."""
    worker = fleet.engine()
    taken = [slots.take(*_backup(fleet, name)) for name in ("a", "b")]
    waiting = {
        fleet.job(lock=f"{each}", priority=each, status="doing", worker_id=worker): each
        for each in (5, 9, 7)
    }
    by_urgency = sorted(waiting, key=lambda each: -waiting[each])
    other = fleet.job(lock="other")
    fleet.ask(
        "UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 hour'"
        " WHERE id = %s",
        other,
    )
    fetch = "SELECT id FROM procrastinate_fetch_job_v2('{default}', %s)"

    assert [_come(fleet, each) for each in by_urgency] == [0, 1, 2]
    assert fleet.ask(fetch, worker) == [None]

    slots.free(taken.pop())
    for number in by_urgency:
        assert fleet.ask(fetch, worker) == [number]
        assert fleet.ask(fetch, worker) == [None]
        assert _come(fleet, number) is None
    slots.free(taken.pop())

    assert fleet.jobs("args->>'waits_for'") == [None] * 4
    assert fleet.ask(fetch, worker) == [None]


def test_a_job_that_is_called_and_cannot_come_lets_the_next_one_come(
    fleet: Fleet,
) -> None:
    """It was put back for another reason: it must not be called for each free slot."""
    worker = fleet.engine()
    taken = [slots.take(*_backup(fleet, name)) for name in ("a", "b")]
    first, second = (
        fleet.job(lock=f"{each}", priority=each, status="doing", worker_id=worker)
        for each in (9, 7)
    )
    assert [_come(fleet, each) for each in (first, second)] == [0, 1]

    slots.free(taken.pop())
    fleet.ask(
        "UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 minute'"
        " WHERE id = %s AND scheduled_at <= now()",
        first,
    )
    slots.free(taken.pop())

    fetch = "SELECT id FROM procrastinate_fetch_job_v2('{default}', %s)"
    assert fleet.ask(fetch, worker) == [second]
