"""What the tests of operators share: small ONNX cases, run together and compared with an oracle.

A case is one node or a few. ``check`` joins many of them into one model, so that one build serves
them all, and runs it twice: on the host body, and in the emulator as the GPU would. Both results
are compared with ONNX Runtime, or with ``onnx.reference`` or given arrays where ONNX Runtime lacks
a kernel or leaves the standard.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import ramforge
import ramforge.kernels  # fills the registry
from ramforge.compiler.ir import DType
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.drivers.emulator import Order
from ramforge.runtime.session import Session
from tests.host_builds import quick_host_builds

Array = NDArray[Any]
Scalar = np.generic

OPSET = 21
TOLERANCE = 1e-4  # of the largest value, as DESIGN section 8 says
RUNTIME, REFERENCE = "ONNX Runtime", "onnx.reference"


@dataclass(frozen=True)
class Known:
    """An operand that is a constant of the model."""

    value: Array | Scalar


@dataclass(frozen=True)
class Case:
    """A small model and the inputs to run it on. ``expected`` takes the place of the oracle."""

    name: str
    nodes: tuple[onnx.NodeProto, ...]
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)
    oracle: str = RUNTIME
    expected: tuple[Array, ...] = ()
    tolerance: float = TOLERANCE
    opset: int = OPSET

    def reference(self) -> Case:
        return replace(self, oracle=REFERENCE)

    def giving(self, *expected: Array | Scalar) -> Case:
        return replace(self, expected=tuple(map(np.asarray, expected)))

    @property
    def operators(self) -> set[str]:
        return {node.op_type for node in self.nodes}


def one(
    op: str, *operands: Array | Scalar | Known | None, outputs: int = 1, **attributes: Any
) -> Case:
    """A case of a single node; its operands become graph inputs, ``Known`` ones constants."""
    names = ["" if operand is None else f"x{slot}" for slot, operand in enumerate(operands)]
    made = tuple(f"y{number}" for number in range(outputs))
    pairs = list(zip(names, operands, strict=True))
    constants = {name: np.asarray(value.value) for name, value in pairs if isinstance(value, Known)}
    inputs = {name: np.asarray(value) for name, value in pairs if name and name not in constants}
    shapes = ",".join("x".join(map(str, value.shape)) or "()" for value in inputs.values())
    words = " ".join(f"{key}={value}" for key, value in attributes.items())
    kind = next((value.dtype.name for value in inputs.values()), "")
    node = helper.make_node(op, names, list(made), **attributes)
    return Case(f"{op} {kind} {shapes} {words}".strip(), (node,), inputs, made, constants)


def many(
    name: str,
    text: str,
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    **constants: Array,
) -> Case:
    """A case of several nodes in onnx.parser's language, one a line: ``y = Relu (x)``."""
    body = "\n".join(f"  {line.strip()}" for line in text.strip().splitlines())
    model = onnx.parser.parse_graph(f"g (float[1] _) => (float[1] _) {{\n{body}\n}}")
    return Case(name, tuple(model.node), inputs, tuple(outputs), constants)


def model_of(cases: Sequence[Case]) -> onnx.ModelProto:
    """All cases side by side in one model; names get the case's number as prefix."""
    nodes: list[onnx.NodeProto] = []
    inputs: list[onnx.ValueInfoProto] = []
    constants: list[onnx.TensorProto] = []
    outputs: list[str] = []
    for number, case in enumerate(cases):
        nodes.extend(_renamed(case.nodes, f"c{number}_"))
        for name, value in case.inputs.items():
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            info = helper.make_tensor_value_info(f"c{number}_{name}", kind, value.shape)
            inputs.append(info)
        for name, value in case.constants.items():
            constants.append(numpy_helper.from_array(value, f"c{number}_{name}"))
        outputs.extend(f"c{number}_{name}" for name in case.outputs)
    infos = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "cases", inputs, infos, constants)
    imports = [helper.make_opsetid("", cases[0].opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    wanted = [value for case in cases for value in case.expected or (None,) * len(case.outputs)]
    for output, value in zip(model.graph.output, wanted, strict=True):
        if value is not None and any(dim.dim_param for dim in output.type.tensor_type.shape.dim):
            _declare(output, value)
    return model


def _declare(output: onnx.ValueInfoProto, value: Array) -> None:
    """Say what shape an output will have that depends on values."""
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    output.CopyFrom(helper.make_tensor_value_info(output.name, kind, value.shape))


def _renamed(nodes: Iterable[onnx.NodeProto], prefix: str) -> Iterator[onnx.NodeProto]:
    for position, node in enumerate(nodes):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{prefix}{node.op_type}_{position}"
        for names in (copy.input, copy.output):
            for slot, name in enumerate(names):
                names[slot] = f"{prefix}{name}" if name else ""
        yield copy


def expected_of(case: Case) -> list[Array]:
    """What the oracle says."""
    if case.expected:
        return list(case.expected)
    model = model_of([case])
    feeds = {f"c0_{name}": value for name, value in case.inputs.items()}
    if case.oracle == REFERENCE:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(value) for value in session.run(None, feeds)]


def difference(found: Array, wanted: Array, tolerance: float) -> str:
    """What is wrong with a result; empty if nothing is."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return f"{found.dtype}{found.shape}, expected {wanted.dtype}{wanted.shape}"
    if wanted.dtype.kind == "V":  # a type that NumPy does not have itself
        wide = DType.of(wanted).wide.numpy
        found, wanted = found.astype(wide), wanted.astype(wide)
    if wanted.dtype.kind != "f":
        wrong = int((found != wanted).sum())
        return f"{wrong} of {wanted.size} elements differ" if wrong else ""
    finite = np.isfinite(wanted)
    same = np.array_equal(found[~finite], wanted[~finite], equal_nan=True)
    if not same or not np.isfinite(found[finite]).all():
        return "infinities or NaNs in other places"
    limit = tolerance * float(np.abs(wanted[finite]).max(initial=0.0))
    gap = np.abs(found[finite].astype(np.float64) - wanted[finite]).max(initial=0.0)
    return f"off by {gap:.3g}, allowed {limit:.3g}" if gap > limit else ""


def run_both(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    folder: Path,
    places: Sequence[str] = ("host", "emulator"),
    level: str = "-O1",
) -> dict[str, list[Array]]:
    """The outputs on the host body, and in the emulator with its threads in random order.

    What -O3 makes of a text is seen in the tests of the zoo and of random models.
    """
    artifact = ramforge.compile(model, target="h200", output=folder / "cases.cu")

    def host() -> list[Array]:
        with Session(artifact, "host:2") as session:
            return session.run(None, feeds)

    def emulator() -> list[Array]:
        driver = EmulatedDriver(artifact, quick=True)
        driver.settings = Settings(blocks=3, order=Order.RANDOM)
        return driver.run([np.ascontiguousarray(feeds[port.name]) for port in artifact.inputs])

    makers = {"host": host, "emulator": emulator}
    with quick_host_builds(level), ThreadPoolExecutor() as pool:  # two compilers at work
        jobs = {place: pool.submit(makers[place]) for place in places}
        return {place: job.result() for place, job in jobs.items()}


def check(cases: Case | Sequence[Case], folder: Path) -> None:
    """Assert that all cases give what their oracle says, everywhere."""
    cases = [cases] if isinstance(cases, Case) else list(cases)
    feeds = {
        f"c{number}_{name}": value
        for number, case in enumerate(cases)
        for name, value in case.inputs.items()
    }
    found = run_both(model_of(cases), feeds, folder)
    expected = [expected_of(case) for case in cases]
    complaints = []
    for where, results in found.items():
        remaining = iter(results)
        for case, values in zip(cases, expected, strict=True):
            mine = [next(remaining) for _ in case.outputs]
            for name, result, wanted in zip(case.outputs, mine, values, strict=True):
                text = difference(result, wanted, case.tolerance)
                if text:
                    complaints.append(f"{where}: {case.name}, {name}: {text}")
    assert not complaints, "\n" + "\n".join(complaints)


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Values of which every mistake shows: normal floats, or integers over the type's range."""
    random = np.random.default_rng([seed, *shape])
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.asarray(random.standard_normal(shape)).astype(kind)
    if kind.kind == "b":
        return np.asarray(random.integers(0, 2, shape)).astype(kind)
    if kind.kind == "V":
        label = DType.of(kind)
        floats = numbers(*shape, seed=seed) if label.is_float else numbers(*shape, dtype=np.int8)
        return (np.exp2(floats) if label is DType.FLOAT8E8M0 else floats).astype(kind)
    limits = np.iinfo(kind)
    return np.asarray(random.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True))


def ints(*values: int) -> Known:
    """A constant list of int64, as axes and shapes are given."""
    return Known(np.array(values, dtype=np.int64))
