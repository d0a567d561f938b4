"""Attention: found in its spellings, and as right in blocks as all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray

from ramforge.codegen import artifact as artifacts
from ramforge.compiler.device import Target, find_target, targets
from ramforge.compiler.expressions import interpret
from ramforge.compiler.expressions.computation import ATTENTION, computation_of
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Graph
from ramforge.compiler.lower import Offer
from ramforge.compiler.pipeline import compile_graph, optimise
from ramforge.compiler.rprogram import Candidate
from ramforge.kernels.attention import BLOCKS
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.drivers.emulator import Order
from ramforge.runtime.gpu_cases import together
from ramforge.runtime.session import Session
from tests.host_builds import quick_host_builds

Array = NDArray[Any]
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
HEADS = "float[2, 3, 33, 20] q, float[2, 3, 21, 20] k, float[2, 3, 21, 24] v, float[33, 21] mask"
KEYS_ACROSS = "t = Transpose<perm=[0, 1, 3, 2]>(k)"
SCALE = "c = Constant<value_float=0.25>()"

# Ways to write the same thing; each gives y of 2 x 3 x 33 x 24.
SPELLINGS = {
    "plain": f"{KEYS_ACROSS} s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v)",
    "scaled": f"{SCALE} {KEYS_ACROSS} s = MatMul(q, t) z = Mul(s, c) p = Softmax(z) "
    "y = MatMul(p, v)",
    "masked": f"{KEYS_ACROSS} s = MatMul(q, t) z = Add(s, mask) p = Softmax(z) y = MatMul(p, v)",
    "scaled before": f"{SCALE} {KEYS_ACROSS} r = Mul(q, c) s = MatMul(r, t) p = Softmax(s) "
    "y = MatMul(p, v)",
    "scaled on both sides": f"{SCALE} {KEYS_ACROSS} r = Mul(q, c) u = Div(t, c) s = MatMul(r, u) "
    "z = Add(s, mask) p = Softmax(z) y = MatMul(p, v)",
    "with a tail": f"{KEYS_ACROSS} s = MatMul(q, t) p = Softmax(s) w = MatMul(p, v) y = Relu(w)",
    "capped": f"{KEYS_ACROSS} s = MatMul(q, t) z = Tanh(s) p = Softmax(z) y = MatMul(p, v)",
    "einsum": 's = Einsum<equation="bhqd,bhkd->bhqk">(q, k) p = Softmax(s) '
    'y = Einsum<equation="bhqk,bhkd->bhqd">(p, v)',
}


def model(
    text: str, inputs: str = HEADS, outputs: str = "float[2, 3, 33, 24] y"
) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD}g ({inputs}) => ({outputs}) {{ {text} }}")


def graph_of(proto: onnx.ModelProto) -> Graph:
    return optimise(import_model(proto))


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [computation_of(node).kind for node in graph_of(proto).nodes]


def inputs_of(proto: onnx.ModelProto, *, causal: bool = False) -> dict[str, Array]:
    random = np.random.default_rng(11)
    found: dict[str, Array] = {}
    for value in proto.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        found[value.name] = random.standard_normal(shape).astype(np.float32) * 2
        if value.name.endswith("mask") and causal:
            later = np.triu(np.ones(shape), 1 + max(shape[1] - shape[0], 0)) > 0
            found[value.name] = np.where(later, -np.inf, 0).astype(np.float32)
    return found


def reference(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feeds)))


def share(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", SPELLINGS)
def test_attention_is_found_and_means_the_same(name: str) -> None:
    proto = model(SPELLINGS[name])
    graph = graph_of(proto)
    (node,) = graph.nodes
    computation = computation_of(node)
    assert computation.kind == ATTENTION and len(node.origin) >= 3
    feeds = inputs_of(proto)
    given = [feeds[name] if name in feeds else graph.constants[name] for name in node.inputs]
    assert share(interpret.run(computation, given), reference(proto, feeds)[0]) < 1e-5


OTHERS = {
    "weights that are read elsewhere": (
        f"{KEYS_ACROSS} s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v)",
        "float[2, 3, 33, 24] y, float[2, 3, 33, 21] p",
    ),
    "scores that are an output": (
        f"{KEYS_ACROSS} s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v)",
        "float[2, 3, 33, 24] y, float[2, 3, 33, 21] s",
    ),
    "a softmax along the queries": (
        f"{KEYS_ACROSS} s = MatMul(q, t) p = Softmax<axis=2>(s) y = MatMul(p, v)",
        "float[2, 3, 33, 24] y",
    ),
    "weights that are changed": (
        f"{KEYS_ACROSS} s = MatMul(q, t) p = Softmax(s) r = Sqrt(p) y = MatMul(r, v)",
        "float[2, 3, 33, 24] y",
    ),
    "no softmax": (
        f"{KEYS_ACROSS} s = MatMul(q, t) p = Sigmoid(s) y = MatMul(p, v)",
        "float[2, 3, 33, 24] y",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_only_looks_like_attention_is_left_alone(name: str) -> None:
    text, outputs = OTHERS[name]
    assert ATTENTION not in kinds(model(text, outputs=outputs))


def test_groups_of_queries_share_their_keys() -> None:
    """As Llama has it: eight heads of queries, two of keys, repeated by Expand."""
    text = (
        "s1 = Constant<value_ints=[1]>() u = Unsqueeze(k, s2) shape = Constant<value_ints="
        "[1, 2, 4, 10, 16]>() e = Expand(u, shape) flat = Constant<value_ints=[1, 8, 10, 16]>() "
        "r = Reshape(e, flat) t = Transpose<perm=[0, 1, 3, 2]>(r) s = MatMul(q, t) "
        "p = Softmax(s) w = Unsqueeze(v, s2) f = Expand(w, shape) x = Reshape(f, flat) "
        "y = MatMul(p, x)"
    ).replace("s1 = Constant<value_ints=[1]>()", "s2 = Constant<value_ints=[2]>()")
    proto = model(
        text,
        "float[1, 8, 5, 16] q, float[1, 2, 10, 16] k, float[1, 2, 10, 16] v",
        "float[1, 8, 5, 16] y",
    )
    assert kinds(proto) == [ATTENTION]
    graph, feeds = graph_of(proto), inputs_of(proto)
    (node,) = graph.nodes
    found = interpret.run(computation_of(node), [feeds[name] for name in node.inputs])
    assert share(found, reference(proto, feeds)[0]) < 1e-5


# batch, queries, keys, depth, width; whether keys and values lie across
SIZES = (
    (3, 65, 33, 20, 12, False, False),
    (2, 70, 130, 64, 64, False, False),
    (1, 1, 7, 16, 16, False, False),
    (4, 7, 1, 8, 40, False, False),
    (1, 3, 300, 64, 32, False, False),
    (1, 33, 63, 7, 65, False, False),
    (2, 17, 65, 32, 32, False, True),
    (1, 64, 66, 36, 16, True, False),
    (1, 4, 30, 8, 128, False, False),
)


def sized(
    b: int, m: int, n: int, d: int, e: int, keys_across: bool, values_across: bool
) -> onnx.ModelProto:
    keys = f"float[{b}, {d}, {n}] k" if keys_across else f"float[{b}, {n}, {d}] k"
    values = f"float[{b}, {e}, {n}] v" if values_across else f"float[{b}, {n}, {e}] v"
    t = "t = Identity(k)" if keys_across else "t = Transpose<perm=[0, 2, 1]>(k)"
    w = "w = Transpose<perm=[0, 2, 1]>(v)" if values_across else "w = Identity(v)"
    return model(
        f"{SCALE} {t} {w} s = MatMul(q, t) z = Mul(s, c) x = Add(z, mask) p = Softmax(x) "
        "y = MatMul(p, w)",
        f"float[{b}, {m}, {d}] q, {keys}, {values}, float[{m}, {n}] mask",
        f"float[{b}, {m}, {e}] y",
    )


def all_sizes() -> onnx.ModelProto:
    return together({f"y{number}": sized(*size) for number, size in enumerate(SIZES)})


def candidate(number: int) -> Offer:
    def offer(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        assert candidates[0].body.family == "attention"
        return (candidates[number % len(candidates)],)

    return offer


def run_emulated(
    proto: onnx.ModelProto,
    feeds: Mapping[str, Array],
    folder: Path,
    target: Target,
    offer: Offer,
    *,
    race: bool = False,
) -> list[list[Array]]:
    """The outputs in order of launch and at random."""
    program = compile_graph(import_model(proto), target, "waves", offer=offer)
    artifact = artifacts.emit(program, folder / "out.cu", {})
    driver = EmulatedDriver(artifact, race=race, quick=True)
    found = []
    for order in (Order.ASCENDING, Order.RANDOM):
        driver.settings = Settings(order=order)
        found.append(driver.run([feeds[port.name] for port in artifact.inputs]))
    driver.close()
    return found


RUNS = [
    *(("fp32", number, 256, 1e-5, False) for number in range(len(BLOCKS))),
    *(("fp16", number, 256, 4e-3, False) for number in range(len(BLOCKS))),
    ("fp32", 4, 128, 1e-5, False),
    ("tf32", 0, 256, 4e-3, False),
    ("bf16", 3, 256, 4e-2, False),
    ("fp32", 1, 256, 1e-5, True),
    ("fp16", 2, 128, 4e-3, True),
]


@pytest.mark.parametrize(("precision", "number", "threads", "tolerance", "race"), RUNS)
def test_every_tile_is_right_in_the_emulator(
    precision: str, number: int, threads: int, tolerance: float, race: bool, tmp_path: Path
) -> None:
    proto = all_sizes()
    feeds = inputs_of(proto, causal=True)
    target = replace(find_target("h200"), sms=3, threads=threads).with_precision(precision)

    def offer(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        is_attention = candidates[0].body.family == "attention"
        return candidate(number)(candidates) if is_attention else candidates[:1]

    runs = run_emulated(proto, feeds, tmp_path, target, offer, race=race)
    expected = reference(proto, feeds)
    assert all(first.tobytes() == again.tobytes() for first, again in zip(*runs, strict=True))
    assert max(map(share, runs[0], expected)) < tolerance


def test_every_size_is_right_on_the_host(tmp_path: Path) -> None:
    proto = all_sizes()
    feeds = inputs_of(proto, causal=True)
    program = compile_graph(import_model(proto), find_target("host:2"), "waves")
    with quick_host_builds(), Session(artifacts.emit(program, tmp_path / "out.cu", {})) as session:
        found = session.run(None, feeds)
    assert max(map(share, found, reference(proto, feeds))) < 1e-5


@pytest.mark.parametrize("target", ["h200", "host:2"])
def test_what_is_no_number_goes_where_it_should(target: str, tmp_path: Path) -> None:
    """A row of which every key is masked has no answer; scores of thousands are no trouble."""
    proto = sized(1, 6, 100, 16, 16, False, False)
    feeds = inputs_of(proto)
    feeds["mask"][:] = 0
    feeds["mask"][0] = -np.inf
    feeds["mask"][1, :90] = -np.inf  # all of the first blocks
    feeds["mask"][2] = np.linspace(-5000, 5000, 100)
    feeds["mask"][3] = -1e30
    feeds["mask"][4, 50] = np.nan
    expected = reference(proto, feeds)[0]
    assert np.isnan(expected[0, [0, 4]]).all() and np.isfinite(expected[0, [1, 2, 3, 5]]).all()
    if target == "h200":
        small = replace(find_target(target), sms=3)
        found = run_emulated(proto, feeds, tmp_path, small, lambda offered: offered)[0][0]
    else:
        program = compile_graph(import_model(proto), find_target(target), "waves")
        artifact = artifacts.emit(program, tmp_path / "out.cu", {})
        with quick_host_builds(), Session(artifact) as session:
            found = session.run(None, feeds)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_projections_and_heads_are_one_memory() -> None:
    """A layer as it is exported, with heads cut and joined by Reshape and Transpose: three
    products, attention and a product, and nothing in between.
    """
    text = (
        "cut = Constant<value_ints=[1, 12, 4, 16]>() join = Constant<value_ints=[1, 12, 64]>() "
        "a = MatMul(x, wq) b = MatMul(x, wk) c = MatMul(x, wv) "
        "d = Reshape(a, cut) e = Reshape(b, cut) f = Reshape(c, cut) "
        "q = Transpose<perm=[0, 2, 1, 3]>(d) k = Transpose<perm=[0, 2, 3, 1]>(e) "
        "v = Transpose<perm=[0, 2, 1, 3]>(f) s = MatMul(q, k) p = Softmax(s) o = MatMul(p, v) "
        "r = Transpose<perm=[0, 2, 1, 3]>(o) j = Reshape(r, join) y = MatMul(j, wo)"
    )
    weights = ", ".join(f"float[64, 64] w{part}" for part in "qkvo")
    proto = model(text, f"float[1, 12, 64] x, {weights}", "float[1, 12, 64] y")
    assert kinds(proto) == ["sum", "sum", "sum", ATTENTION, "sum"]


@pytest.mark.parametrize("tail", ["y = MatMul(p, p)", "o = MatMul(p, v) y = Add(o, p)"])
def test_weights_that_are_read_twice_stay_a_tensor(tail: str) -> None:
    proto = model(
        f"s = MatMul(q, k) p = Softmax(s) {tail}",
        "float[9, 8] q, float[8, 9] k, float[9, 9] v",
        "float[9, 9] y",
    )
    assert ATTENTION not in kinds(proto)


def hoisted(text: str) -> int:
    """The nodes of a small product of x and w, 5 x 8 and 8 x 5, with something in front."""
    return len(graph_of(model(text, "float[5, 8] x, float[8, 5] w", "float[5, 5] y")).nodes)


def test_scales_go_behind_a_product_only_where_that_is_the_same() -> None:
    def scaled(value: str, rest: str) -> str:
        return f"c = Constant<value_float={value}>() a = Mul(x, c) {rest}"

    product = "y = MatMul(a, w)"
    assert hoisted(scaled("0.125", product)) == 1
    assert hoisted(scaled("1e30", product)) == 2  # a sum might leave the range of numbers
    assert hoisted(scaled("1e-30", product)) == 2
    squared = scaled("0.5", "t = Transpose<perm=[1, 0]>(a) y = MatMul(a, t)")
    proto = model(squared, "float[5, 8] x", "float[5, 5] y")
    feeds = inputs_of(proto)
    graph = graph_of(proto)
    known = {**graph.constants, **feeds}
    for node in graph.nodes:
        given = [known[name] for name in node.inputs]
        known[node.outputs[0]] = interpret.run(computation_of(node), given)
    assert share(known["y"], reference(proto, feeds)[0]) < 1e-5


def test_a_scale_of_both_factors_counts_twice() -> None:
    proto = model(
        "c = Constant<value_float=0.5>() a = Mul(x, c) y = MatMul(a, a)",
        "float[8] x",
        "float y",
    )
    feeds, graph = inputs_of(proto), graph_of(proto)
    known = {**graph.constants, **feeds}
    for node in graph.nodes:
        given = [known[name] for name in node.inputs]
        known[node.outputs[0]] = interpret.run(computation_of(node), given)
    assert share(known["y"], reference(proto, feeds)[0]) < 1e-5


GPUS = [target.name for target in targets() if not target.is_host]


@pytest.mark.parametrize("name", GPUS)
def test_heads_of_every_size_fit_every_device(name: str) -> None:
    """Those that take more than 512 bytes stay three nodes."""
    for depth, precision in ((128, "fp32"), (128, "tf32"), (128, "fp16"), (256, "fp32")):
        for queries in (1, 64):
            proto = sized(2, queries, 300, depth, depth, False, False)
            target = find_target(name).with_precision(precision)
            program = compile_graph(import_model(proto), target)
            families = {operator.variant.body.family for operator in program.operators}
            assert ("attention" in families) == (depth == 128)
