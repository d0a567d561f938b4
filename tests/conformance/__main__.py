"""``python -m tests.conformance``: run the suite, write docs/conformance.json, print a summary."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

import onnx

from tests.conformance import runner, suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", "--only", default="", help="tests whose name matches this pattern")
    parser.add_argument("-o", "--output", type=Path, help="where to write the JSON")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each failure")
    options = parser.parse_args()
    tests = [test for test in suite.tests() if re.search(options.only, test.name)]
    started = time.monotonic()
    rows = []
    for row in runner.run_all(tests, options.jobs):
        rows.append(row)
        if options.verbose and row.outcome != runner.PASSED:
            print(f"{row.outcome}: {row.name} {row.reason}", flush=True)
        if sys.stderr.isatty():
            print(f"\r{len(rows)} of {len(tests)}", end="", file=sys.stderr)
    counts = Counter(row.outcome for row in rows)
    order = {test.name: number for number, test in enumerate(tests)}
    rows.sort(key=lambda row: order[row.name])
    summary = {
        "onnx_version": onnx.__version__,
        "total": len(rows),
        **{outcome: counts[outcome] for outcome in runner.OUTCOMES},
    }
    if options.output:
        table = {**summary, "tests": [row.as_dict() for row in rows]}
        options.output.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(summary), f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
