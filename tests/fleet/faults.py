"""Faults: what happens to a fleet, planned at random from a seed."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fleet.servers import Server
from tests.fleet.workers import Worker, send
from tests.proxy import Fault, Proxy

_AHEAD = "+3600s"
_LIBRARY = "faketime/libfaketimeMT.so.1"
_SLOW = Fault(delay_seconds=1.0)
_HANGING = Fault(delay_seconds=40.0)


@dataclass(frozen=True, kw_only=True)
class World:
    """What faults happen to."""

    workers: Sequence[Worker]
    queue: Server
    proxy: Proxy

    def worker(self, target: str) -> Worker:
        """Return a worker by its name."""
        return next(each for each in self.workers if each.name == target)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of fault: how it begins, how long it may last, and how it ends."""

    begin: Callable[[World, str], None]
    end: Callable[[World, str], None]
    seconds: tuple[float, float]
    targets: Callable[[World], list[str]]
    may_end: Callable[[World, str], bool] = lambda _world, _target: True


@dataclass(frozen=True, kw_only=True, order=True)
class Planned:
    """A fault that is to happen: when it begins, counted from the start, and ends."""

    at: float
    until: float
    kind: str
    target: str


def _workers(world: World) -> list[str]:
    return [each.name for each in world.workers]


def _placed(world: World) -> list[str]:
    return [each.name for each in world.workers if each.place is not None]


def _queue(_world: World) -> list[str]:
    return ["queue"]


def _store(_world: World) -> list[str]:
    return ["store"]


def _nothing(_world: World, _target: str) -> None:
    pass


def _kill(world: World, target: str) -> None:
    world.worker(target).kill()


def _lose(world: World, target: str) -> None:
    world.worker(target).lose()


def _start(world: World, target: str) -> None:
    world.worker(target).start()


def _kill_job(world: World, target: str) -> None:
    send(world.worker(target).jobs()[:1], signal.SIGKILL)


def _stop(world: World, target: str) -> None:
    world.worker(target).signal_all(signal.SIGSTOP)


def _continue(world: World, target: str) -> None:
    world.worker(target).signal_all(signal.SIGCONT)


def _stop_jobs(world: World, target: str) -> None:
    send(world.worker(target).jobs(), signal.SIGSTOP)


def _restart_queue(world: World, _target: str) -> None:
    world.queue.stop()
    world.queue.start()


def _take_queue(world: World, _target: str) -> None:
    world.queue.stop()


def _bring_queue(world: World, _target: str) -> None:
    world.queue.start()


def _unplug(world: World, target: str) -> None:
    if place := world.worker(target).place:
        place.unplug()


def _plug(world: World, target: str) -> None:
    if place := world.worker(target).place:
        place.plug()


def _split(world: World, target: str) -> None:
    if place := world.worker(target).place:
        place.split()


def _mend(world: World, target: str) -> None:
    if place := world.worker(target).place:
        place.mend()


def _slow(world: World, _target: str) -> None:
    world.proxy.fail(".*", _SLOW, times=None)


def _hang(world: World, _target: str) -> None:
    world.proxy.fail("PutObject", _HANGING, times=3)


def _heal(world: World, _target: str) -> None:
    world.proxy.heal()


def _set_ahead(world: World, target: str) -> None:
    world.worker(target).lose()
    world.worker(target).start(**ahead())


def _set_right(world: World, target: str) -> None:
    world.worker(target).lose()
    world.worker(target).start()


def _drain(world: World, target: str) -> None:
    world.worker(target).drain()


def _has_drained(world: World, target: str) -> bool:
    return not world.worker(target).runs


def _replace(world: World, target: str) -> None:
    # Another machine: it has nothing of the state of the one before.
    world.worker(target).life += 1
    world.worker(target).start()


KINDS: Mapping[str, Kind] = {
    "killed-worker": Kind(
        begin=_kill, end=_start, seconds=(5, 40), targets=_workers
    ),
    "lost-machine": Kind(begin=_lose, end=_start, seconds=(5, 100), targets=_workers),
    "killed-job": Kind(
        begin=_kill_job, end=_nothing, seconds=(1, 1), targets=_workers
    ),
    "stopped-machine": Kind(
        begin=_stop, end=_continue, seconds=(40, 100), targets=_workers
    ),
    "stopped-jobs": Kind(
        begin=_stop_jobs, end=_continue, seconds=(20, 60), targets=_workers
    ),
    "queue-restarted": Kind(
        begin=_restart_queue, end=_nothing, seconds=(1, 1), targets=_queue
    ),
    "queue-away": Kind(
        begin=_take_queue, end=_bring_queue, seconds=(60, 150), targets=_queue
    ),
    "cut-off": Kind(begin=_unplug, end=_plug, seconds=(30, 100), targets=_placed),
    "split": Kind(begin=_split, end=_mend, seconds=(30, 100), targets=_placed),
    "slow-store": Kind(begin=_slow, end=_heal, seconds=(20, 60), targets=_store),
    "hanging-store": Kind(begin=_hang, end=_heal, seconds=(45, 60), targets=_store),
    "wrong-clock": Kind(
        begin=_set_ahead, end=_set_right, seconds=(20, 60), targets=_workers
    ),
    "replaced": Kind(
        begin=_drain, end=_replace, seconds=(5, 40), targets=_workers,
        may_end=_has_drained,
    ),
}  # fmt: skip


def plan(
    world: World,
    *,
    seed: int,
    seconds: float,
    kinds: Sequence[str] = tuple(KINDS),
    gap: float = 15.0,
    brief: float = 1.0,
) -> list[Planned]:
    """Return faults for so many seconds: each kind in turn, as a shuffled deck has it.

    Nothing happens to a target twice at once, and nearly half of the workers are left
    alone at any time. `brief` shortens all of them.
    """
    chance = random.Random(seed)
    planned: list[Planned] = []
    deck = _shuffled(kinds, chance)
    at = gap / 2
    while at < seconds:
        kind = next(deck)
        low, high = KINDS[kind].seconds
        until = min(at + chance.uniform(low, high) * brief, seconds)
        busy = {each.target for each in planned if each.until > at}
        free = [each for each in KINDS[kind].targets(world) if each not in busy]
        names = {each.name for each in world.workers}
        if free and len(busy & names) <= len(names) // 2:
            planned.append(
                Planned(at=at, until=until, kind=kind, target=chance.choice(free))
            )
        at += chance.uniform(0.5, 1.5) * gap
    return planned


def ahead() -> dict[str, str]:
    """Return the variables by which a process has a clock that is an hour ahead."""
    (library,) = Path("/usr/lib").glob(f"*/{_LIBRARY}")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": _AHEAD,
        # Waits and time limits are as they were.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _shuffled(kinds: Sequence[str], chance: random.Random) -> Iterator[str]:
    while True:
        yield from chance.sample(kinds, len(kinds))
