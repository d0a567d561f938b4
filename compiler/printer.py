"""Stable text of both IRs, for dumps, golden files and people."""

from __future__ import annotations

from ramforge.compiler.expressions.computation import Computation, computation_of
from ramforge.compiler.ir import Graph, Tensor
from ramforge.compiler.memory import Memory
from ramforge.compiler.plan import Kind, Plan, Row
from ramforge.compiler.rprogram import ROperator


def tensor_text(tensor: Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    order = "" if tensor.is_row_major else f" order {''.join(map(str, tensor.layout))}"
    return f"{tensor.name}: {tensor.dtype.label}[{shape}]{order}"


def graph_text(graph: Graph) -> str:
    lines = [f"graph {graph.name}"]
    lines += [f"  input {tensor_text(graph.tensor(name))}" for name in graph.inputs]
    lines += [f"  constant {tensor_text(graph.tensor(name))}" for name in graph.constants]
    for node in graph.nodes:
        outputs = ", ".join(tensor_text(graph.tensor(name)) for name in node.outputs if name)
        lines.append(f"  {node.op} {node.name!r}({', '.join(node.inputs)}) -> {outputs}")
        if "computation" in node.attrs:
            lines += [f"      {line}" for line in computation_text(computation_of(node))]
        lines += [
            f"      {key} = {value!r}"
            for key, value in sorted(node.attrs.items())
            if key != "computation"
        ]
    lines += [f"  output {name}" for name in graph.outputs]
    return "\n".join(lines) + "\n"


def computation_text(computation: Computation) -> list[str]:
    folded = ",".join(f"{var.name}<{var.size}" for var in computation.reduction)
    axes = ",".join(f"{var.name}<{var.size}" for var in computation.axes)
    head = f"{computation.kind or 'map'} [{axes}]" + (f" over [{folded}]" if folded else "")
    lines = [head]
    if computation.scores is not None:
        scores = computation.scores
        summed = ",".join(f"{var.name}<{var.size}" for var in scores.reduction)
        lines.append(f"scores over [{summed}] {scores.value.key}")
        lines.append(f"       finish {scores.finish.key}")
    lines += [f"{fold.name} = {fold.kind} of {fold.value.key}" for fold in computation.folds]
    lines.append(f"value  {computation.value.key}")
    if computation.cell is not None:
        lines += [f"result {result.key}" for result in computation.cell.results]
    if computation.finish is not None:
        lines.append(f"finish {computation.finish.key}")
    return lines


def program_text(operators: tuple[ROperator, ...], plan: Plan, memory: Memory) -> str:
    lines = [f"program: policy {plan.policy}, {len(plan.launches)} launches, {plan.waves} waves"]
    for number, operator in enumerate(operators):
        variant = operator.variant
        lines.append(
            f"  {number} {operator.op} {operator.name!r}: {variant.tasks} tasks of "
            f"{variant.body.name} in step {plan.steps[number]}; {variant.body.summary}"
        )
        for name in variant.operands:
            place = memory.places[name]
            lines.append(f"      {name} at {place.space}+{place.offset}")
    for number, launch in enumerate(plan.launches):
        events = launch.events
        lines.append(f"  launch {number}: {launch.lanes} lanes, {launch.shape}")
        lines += [
            f"    event {event}: {size} units in groups of {group}"
            for event, (size, group) in enumerate(zip(events.size, events.group, strict=True))
        ]
        lines += [f"    {row_text(row)}" for row in launch.rows]
    return "\n".join(lines) + "\n"


def row_text(row: Row) -> str:
    """``lanes 0..8 RUN 3: from 0 on 2 each, 1 lane at a time by 2``."""
    lanes = f"lanes {row.lane}..{row.lane + row.lanes}"
    what = f"event {row.what}" if row.kind in (Kind.WAIT, Kind.SIGNAL) else str(row.what)
    each = f"{row.first}..{row.first + row.units}"
    step = f", then by {row.step} every {row.per}" if row.step else ""
    return f"{lanes} {row.kind.name} {what}: {each}{step}"
