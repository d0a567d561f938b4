"""``python -m tests.conformance``: run the suite, say what came of it, and write it down.

``--report`` runs all of it, also as CUDA, and writes docs/conformance.json and CONFORMANCE.md.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.conformance import devices, report, runner, suite
from tests.conformance.runner import Row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", "--only", default="", help="tests whose name matches this pattern")
    parser.add_argument("-o", "--output", type=Path, help="where to write the rows as JSON")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each failure")
    parser.add_argument("-c", "--cuda", action="store_true", help="NVRTC and the emulator too")
    parser.add_argument("--report", action="store_true", help="all of it, into docs/")
    options = parser.parse_args()
    if options.report and options.only:
        parser.error("--report is about the whole suite")
    tests = [test for test in suite.tests() if re.search(options.only, test.name)]
    started = time.monotonic()
    rows = {row.name: row for row in _told(runner.run_all(tests, options.jobs), len(tests))}
    host_seconds = time.monotonic() - started
    if options.cuda or options.report:
        jobs = _jobs(tests, rows)
        rows |= {row.name: row for row in _told(devices.run_all(jobs, options.jobs), len(jobs))}
    found = [rows[test.name] for test in tests]
    if options.verbose:
        for row in found:
            for text in (row.outcome, row.nvrtc, row.emulator):
                if text not in ("", runner.PASSED):
                    print(f"{text}: {row.name} {row.reason}")
    if options.output:
        options.output.write_text(report.json_text(found))
    if options.report:
        report.write(found)
    seconds = time.monotonic() - started
    print(json.dumps(report.summary(found)))
    print(f"host {host_seconds:.0f} s, all {seconds:.0f} s")


def _jobs(tests: list[suite.SuiteTest], rows: dict[str, Row]) -> list[devices.Job]:
    passed = [test for test in tests if rows[test.name].outcome == runner.PASSED]
    sizes = {test.name: test.model().ByteSize() for test in passed}
    emulated = devices.covering([rows[test.name] for test in passed], sizes)
    return [devices.Job(test, rows[test.name], test.name in emulated) for test in passed]


def _told(rows: Iterable[Row], total: int) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        if sys.stderr.isatty():
            print(f"\r{number} of {total}", end="", file=sys.stderr)
        yield row


if __name__ == "__main__":
    main()
