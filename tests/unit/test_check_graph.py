"""The verifier behind the passes knows a good graph from a broken one, and says what is wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from program_support import optimised

from ramforge.compiler.check import BrokenInvariant, check_graph
from ramforge.compiler.ir import DType, Graph, Tensor

GRAPH = optimised("resnet_small")


def with_node(number: int, **changes: Any) -> Graph:
    nodes = list(GRAPH.nodes)
    nodes[number] = replace(nodes[number], **changes)
    return replace(GRAPH, nodes=tuple(nodes))


def with_tensor(name: str, **changes: Any) -> Graph:
    changed = replace(GRAPH.tensor(name), **changes)
    return replace(GRAPH, tensors={**GRAPH.tensors, name: changed})


def without(name: str) -> Graph:
    return replace(GRAPH, tensors={n: t for n, t in GRAPH.tensors.items() if n != name})


MADE = GRAPH.nodes[0].outputs[0]
GIVEN = GRAPH.inputs[0]
WEIGHT = next(iter(GRAPH.constants))
BROKEN_GRAPHS: dict[str, Graph] = {
    "reads 'nothing' too early": with_node(0, inputs=("nothing", *GRAPH.nodes[0].inputs[1:])),
    f"makes '{GIVEN}' a second time": with_node(0, outputs=(GIVEN,)),
    f"'{MADE}' is not described": without(MADE),
    f"tensor '{GIVEN}' is not described": without(GIVEN),
    "outputs ['nothing'] are never made": replace(
        GRAPH,
        outputs=("nothing",),
        tensors={**GRAPH.tensors, "nothing": Tensor("nothing", (1,), DType.FLOAT32)},
    ),
    f"constant '{WEIGHT}' has another shape": replace(
        GRAPH, constants={**GRAPH.constants, WEIGHT: GRAPH.constants[WEIGHT][None]}
    ),
    "computes another shape": with_tensor(MADE, shape=(*GRAPH.tensor(MADE).shape, 1), layout=()),
    "computes another type": with_tensor(MADE, dtype=DType.INT32),
    f"reads '{GIVEN}' as something else": with_tensor(GIVEN, dtype=DType.INT32),
}


def test_a_good_graph_passes() -> None:
    check_graph(GRAPH, "a pass")


@pytest.mark.parametrize("message", BROKEN_GRAPHS)
def test_a_broken_graph_is_refused(message: str) -> None:
    with pytest.raises(BrokenInvariant, match="after a pass: .*" + re.escape(message)):
        check_graph(BROKEN_GRAPHS[message], "a pass")
