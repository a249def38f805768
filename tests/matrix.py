"""Matrix: every defect planted in the example service, and all probes asked of it."""

from __future__ import annotations

import argparse
import sys
import time

from tests.defects import record
from tests.defects.bench import Bench, bench, findings, probes_of
from tests.defects.defect import Defect
from tests.defects.registry import DEFECTS

_MARKS = {True: "passed", False: "FAILED", None: "inconclusive"}


def main() -> int:
    """Ask, print what failed, and keep it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("names", nargs="*", help="defects or families; none: all")
    parser.add_argument("--record", action="store_true", help="keep what failed")
    parser.add_argument(
        "--own", action="store_true", help="ask only the probes of a defect's family"
    )
    parser.add_argument("--verbose", action="store_true", help="show what was observed")
    given = parser.parse_args()
    chosen = [
        each
        for each in DEFECTS.values()
        if not given.names or {each.name, each.family} & {*given.names}
    ]
    missed = 0
    with bench() as ready:
        if not (given.own or given.names):
            print("the good service", flush=True)
            missed += len(_ask(ready, None, given))
        for defect in chosen:
            failed = _ask(ready, defect, given)
            if given.record:
                record.write(record.read() | {defect.name: sorted(failed)})
            is_noticed = defect.probe in failed
            missed += not is_noticed
            others = ", ".join(sorted(failed - {defect.probe}))
            word = defect.probe if is_noticed else f"NOT NOTICED by {defect.probe}"
            print(f"{defect.name}: {word}" + (f"; also {others}" if others else ""))
    print(f"{len(chosen)} defects, {missed} missed")
    if given.record:
        kept = record.read()
        record.write({name: kept.get(name, []) for name in DEFECTS})
    return 1 if missed else 0


def _ask(ready: Bench, defect: Defect | None, given: argparse.Namespace) -> set[str]:
    began = time.monotonic()
    try:
        with ready.serving(defect) as settings:
            started = time.monotonic()
            family = defect.family if defect else ""
            probes = [
                each
                for each in probes_of(settings)
                if each.family == family or not family or not (each.alone or given.own)
            ]
            found = [each.check for each in findings(settings, probes)]
    except (AssertionError, LookupError) as error:
        print(f"{defect.name if defect else ''}: {error}")
        return set()
    if given.verbose:
        for each in found:
            if not each.passed:
                print(
                    f"  {_MARKS[each.passed]} {each.name}: {each.observed}; {each.detail}"
                )
        took = time.monotonic() - started
        print(
            f"  {len(found)} probes in {took:.1f} s, started in {started - began:.1f}"
        )
        sys.stdout.flush()
    return {each.name for each in found if each.passed is False}


if __name__ == "__main__":
    sys.exit(main())
