"""The locks of a source in the stores that its set goes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

from opskit.errors import StoreError
from opskit.log import logger
from opskit.store import Store

# Holds the lock in one store, and yields what raises if it was lost meanwhile.
LockStore = Callable[[Store], AbstractContextManager[Callable[[], None]]]


def no_lock(_store: Store) -> AbstractContextManager[Callable[[], None]]:
    """Lock nothing: for a store that nobody else knows."""
    return nullcontext(lambda: None)


@dataclass(kw_only=True)
class LockedStores:
    """The stores that could be locked, and why the others could not."""

    usable: list[Store] = field(default_factory=list)
    failed: dict[str, StoreError] = field(default_factory=dict)
    checks: dict[str, Callable[[], None]] = field(default_factory=dict)

    def require_held(self) -> dict[str, StoreError]:
        """Return the stores whose lock is not certain any more, and why.

        Raises:
            LockHeld: another run has taken one.
        """
        lost: dict[str, StoreError] = {}
        for name, check in self.checks.items():
            try:
                check()
            except StoreError as error:
                lost[name] = error
        return lost


@contextmanager
def locked(stores: Sequence[Store], lock: LockStore) -> Iterator[LockedStores]:
    """Lock every store for the length of the block; one that fails is left out.

    Raises:
        LockHeld: another run has the source locked in one of them.
        StoreError: none could be locked.
    """
    found = LockedStores()
    with ExitStack() as stack:
        for store in stores:
            try:
                found.checks[store.name] = stack.enter_context(lock(store))
            except StoreError as error:
                logger().error("a store failed", store=store.name, error=error.message)
                found.failed[store.name] = error
            else:
                found.usable.append(store)
        if not found.usable and found.failed:
            raise next(iter(found.failed.values()))
        yield found
