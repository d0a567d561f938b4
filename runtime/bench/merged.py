"""Products of the same input, one by one and merged along their columns: what the cost model
predicts for both. ``python -m ramforge.runtime.bench.merged --target h200``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.compiler.device import DEFAULT_TARGET, PRECISIONS, Target, find_target
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import compile_graph

ROWS = (1, 16, 128, 512)


@dataclass(frozen=True, slots=True)
class Products:
    """Weights ``depth`` x width that multiply the same rows. A gate passes through a SiLU and is
    multiplied with the other; otherwise each has a reader of its own.
    """

    name: str
    depth: int
    widths: tuple[int, ...]
    is_gate: bool = False

    def model(self, rows: int, merged: bool) -> onnx.ModelProto:
        parts = [f"p{number}" for number in range(len(self.widths))]
        weights = {f"w{number}": (self.depth, width) for number, width in enumerate(self.widths)}
        nodes = [
            helper.make_node("MatMul", ["x", weight], [part])
            for weight, part in zip(weights, parts, strict=True)
        ]
        known = []
        if merged:
            weights = {"w": (self.depth, sum(self.widths))}
            product = helper.make_node("MatMul", ["x", "w"], ["p"])
            nodes = [product, helper.make_node("Split", ["p", "widths"], parts, axis=1)]
            known = [numpy_helper.from_array(np.array(self.widths, np.int64), "widths")]
        known += [
            numpy_helper.from_array(np.zeros(shape, np.float32), name)
            for name, shape in weights.items()
        ]
        outputs = ["y"] if self.is_gate else [f"{part}.read" for part in parts]
        if self.is_gate:
            nodes += [
                helper.make_node("Sigmoid", ["p0"], ["passed"]),
                helper.make_node("Mul", ["p0", "passed"], ["gate"]),
                helper.make_node("Mul", ["gate", "p1"], ["y"]),
            ]
        else:
            nodes += [helper.make_node("Tanh", [part], [f"{part}.read"]) for part in parts]
        ports = [("x", self.depth), *zip(outputs, self.widths, strict=False)]
        x, *made = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, (rows, width))
            for name, width in ports
        ]
        graph = helper.make_graph(nodes, "products", [x], made, known)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


PRODUCTS = (
    Products("SwiGLU, 2048 x 8192", 2048, (8192, 8192), is_gate=True),
    Products("Q, K, V, 768 wide", 768, (768, 768, 768)),
    Products("Q, K, V, 2048 and 512 wide", 2048, (2048, 512, 512)),
)


def predicted_us(products: Products, rows: int, merged: bool, target: Target) -> float:
    program = compile_graph(import_model(products.model(rows, merged)), target)
    return program.predicted_ns / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default=DEFAULT_TARGET)
    parser.add_argument("--precision", default=PRECISIONS[0], choices=PRECISIONS)
    arguments = parser.parse_args()
    target = find_target(arguments.target).with_precision(arguments.precision)
    print(f"predicted us on {target.label}, {target.precision}: one by one / merged")
    for products in PRODUCTS:
        for rows in ROWS:
            pair = [predicted_us(products, rows, merged, target) for merged in (False, True)]
            print(f"{products.name}, {rows} rows: {pair[0]:.1f} / {pair[1]:.1f}")


if __name__ == "__main__":
    main()
