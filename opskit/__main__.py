"""`python -m opskit`: Invoke, with the exit codes of the contract for wrong calls."""

from __future__ import annotations

import json
import os
import sys

from invoke.exceptions import Exit, ParseError
from invoke.program import Program

from opskit import __version__

_USAGE_CODE = 2
_INTERRUPTED_CODE = 130
_BROKEN_PIPE_CODE = 141  # as a shell reports who died of it


class OpskitProgram(Program):
    """Invoke's program; a call that cannot be parsed exits with 2 instead of 1."""

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """Parse and run the call; always ends the process as the tasks say."""
        try:
            try:
                self._run(argv)
            finally:
                sys.stdout.flush()  # here, where it can still be told what is amiss
        except BrokenPipeError:
            # Who read our output went away; nothing more can be told on that way.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(_BROKEN_PIPE_CODE)

    def _run(self, argv: list[str] | None) -> None:
        arguments = sys.argv if argv is None else argv
        try:
            self._parse(argv)
            self.execute()
        except ParseError as error:
            sys.exit(_usage(str(error), as_json="--json" in arguments))
        except Exit as ended:
            if ended.message:
                print(ended.message, file=sys.stderr)  # noqa: T201 - Invoke's own words
            sys.exit(ended.code)
        except KeyboardInterrupt:
            sys.exit(_INTERRUPTED_CODE)

    def _parse(self, argv: list[str] | None) -> None:
        self.create_config()
        try:
            self.parse_core(argv)
            self.parse_collection()
            self.parse_tasks()
        except ValueError as error:  # a flag that wants a number and got none
            raise ParseError(str(error)) from error
        self.parse_cleanup()
        self.update_config()


def _usage(message: str, *, as_json: bool) -> int:
    hint = "`./inv --list` names the tasks, `./inv TASK --help` the flags of one."
    if as_json:
        document = {
            "status": "error",
            "code": _USAGE_CODE,
            "error": message,
            "hint": hint,
        }
        print(json.dumps(document))  # noqa: T201 - the one document that --json promises
    print(f"error: {message}\nhint: {hint}", file=sys.stderr)  # noqa: T201
    return _USAGE_CODE


if __name__ == "__main__":
    OpskitProgram(name="inv", binary="inv", version=__version__).run()
