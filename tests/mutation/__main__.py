"""``python -m tests.mutation [NAME...]``: how many mistakes each network shows.

``--report`` is about the full size and enters each into docs/mutation.json and MUTATION.md.
"""

from __future__ import annotations

import argparse
import time

from ramforge.zoo import ZOO
from tests.mutation import report
from tests.mutation.study import COUNT, study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="networks; all of them without any")
    parser.add_argument("--small", action="store_true", help="their small forms")
    parser.add_argument("--count", type=int, default=COUNT, help="mutants of each")
    parser.add_argument("--report", action="store_true", help="full size, into docs/")
    options = parser.parse_args()
    if options.report and options.small:
        parser.error("--report is about networks at full size")
    unknown = [name for name in options.names if name not in ZOO]
    if unknown:
        parser.error(f"unknown networks {unknown}; known are {', '.join(ZOO)}")
    everything = [name for name in ZOO if options.small or name not in report.TOO_LARGE]
    for name in options.names or everything:
        started = time.monotonic()
        entry = ZOO[name]
        found = study(name, entry.small() if options.small else entry.full(), options.count)
        if options.report:
            report.enter(found)
        caught = len(found.counted) - len(found.missed)
        seconds = time.monotonic() - started
        print(f"{name}: {caught} of {len(found.counted)} caught, {seconds:.0f} s", flush=True)
        for missed in found.missed:
            print(f"    missed ({missed.change:.2g} tolerances): {missed.title}")


if __name__ == "__main__":
    main()
