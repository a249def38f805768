"""Turn: the time for which a job of a fleet makes a set, and whether it still may."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from opskit.config.fleet import FleetSettings
from opskit.errors import LockHeld, OpskitError, UsageError
from opskit.log import logger
from opskit.postgres.connect import connect, query_value
from opskit.postgres.snapshot import Attempt
from opskit.threads import within

_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """When the set is due, and what the fleet's queue knows the job by.

    Without a job it was started while the queue did not answer.
    """

    due: AwareDatetime
    job: int | None
    attempt: int = 0
    worker: int = 0

    @property
    def token(self) -> Attempt | None:
        """The attempt at the job, if there is a job."""
        return None if self.job is None else (self.job, self.attempt)

    def require_held(self, fleet: FleetSettings) -> None:
        """Check that no other worker has taken over the job.

        Where the queue's database does not answer, the stores decide alone.

        Raises:
            LockHeld: another has.
        """
        if self.job is None:
            return
        try:
            is_held = within(_ANSWER_SECONDS, lambda: self._is_held(fleet), name="turn")
        except TimeoutError:
            _warn(f"no answer in {_ANSWER_SECONDS:g} seconds")
        except OpskitError as error:
            _warn(error.message)
        else:
            if not is_held:
                raise LockHeld(
                    "another worker of the fleet has taken over this job",
                    hint="Nothing is to be done: the other one makes the set, and what "
                    "this one stored is removed.",
                )

    def _is_held(self, fleet: FleetSettings) -> bool:
        with connect(fleet.resolve_url(), purpose="turn") as connection:
            held = query_value(
                connection,
                "SELECT opskit_fleet.holds_turn(%s, %s, %s)",
                self.job,
                self.attempt,
                self.worker,
            )
        return bool(held)


def _warn(reason: str) -> None:
    logger().warning(
        "the fleet's queue cannot be asked, so the stores decide", reason=reason
    )


def read_turn(text: str) -> Turn | None:
    """Return the turn that a worker describes to its job; None if there is no worker.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return TypeAdapter(Turn).validate_json(text) if text else None
    except ValidationError:
        raise UsageError(
            "OPSKIT_TURN is not valid",
            hint="Only a worker of a fleet sets it: unset it.",
        ) from None
