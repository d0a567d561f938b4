"""The tour in one go: two models from ONNX to a CUDA file, run, and compared with ONNX Runtime.

`make demo` runs it. What it makes stays in `out/`, to be opened and read.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import onnx
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ramforge
from ramforge.runtime import arrays, verify
from ramforge.zoo import MODELS

NAMES = ("resnet_small", "encoder_small")
FOLDER = Path("out")
RUNS = 50


def demonstrate(name: str) -> tuple[str, ...]:
    """One row of the table."""
    FOLDER.mkdir(exist_ok=True)
    model = FOLDER / f"{name}.onnx"
    onnx.save(MODELS[name](), model)
    artifact = ramforge.compile(model, output=FOLDER / f"{name}.cu")
    inputs = arrays.made_up(artifact.inputs, seed=0)
    reference = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = reference.run(None, inputs)
    with ramforge.Session(artifact) as session:
        outputs = session.run(None, inputs)
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            session.run(None, inputs)
            times.append(time.perf_counter() - start)
        device = session.device
    found = verify.differences([port.name for port in artifact.outputs], outputs, expected)
    verify.require(found)
    schedule = artifact.manifest["schedule"]
    return (
        name,
        device,
        f"{1e3 * sorted(times)[RUNS // 2]:.3f}",
        f"{max(item.share for item in found):.1e}",
        str(schedule["roperators"]),
        str(schedule["rtasks"]),
        str(schedule["waves"]),
        str(artifact.source),
    )


def main() -> None:
    head = ("model", "runs on", "median ms", "error", "rOperators", "rTasks", "waves", "source")
    rows = [head, *(demonstrate(name) for name in NAMES)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
    print("\nerror: the largest difference from ONNX Runtime, as a share of the largest value")


if __name__ == "__main__":
    main()
