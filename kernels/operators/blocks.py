"""DepthToSpace and SpaceToDepth: square blocks of pixels become channels, and back."""

from __future__ import annotations

from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.terms import Expr
from ramforge.compiler.ir import Graph, Node, Tensor
from ramforge.kernels.operators.movement import load_from, movement


def _depth_to_space(node: Node, graph: Graph, output: Tensor, at: tuple[Index, ...]) -> Expr:
    batch, channel, row, column = at
    block = node.attr("blocksize")
    inner = (row % block) * block + column % block
    if node.attr("mode", "DCR") == "CRD":
        depth = channel * block**2 + inner
    else:
        depth = inner * output.shape[1] + channel
    return load_from(node, graph, 0, (batch, depth, row // block, column // block))


def _space_to_depth(node: Node, graph: Graph, output: Tensor, at: tuple[Index, ...]) -> Expr:
    batch, depth, row, column = at
    block = node.attr("blocksize")
    channels = graph.tensor(node.inputs[0]).shape[1]
    if node.attr("mode", "DCR") == "CRD":
        channel, inner = depth // block**2, depth % block**2
    else:
        channel, inner = depth % channels, depth // channels
    down, right = inner // block, inner % block
    return load_from(node, graph, 0, (batch, channel, row * block + down, column * block + right))


movement("DepthToSpace", _depth_to_space)
movement("SpaceToDepth", _space_to_depth)
