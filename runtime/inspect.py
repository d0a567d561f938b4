"""What there is to know about a model before it is compiled, or about an artefact afterwards.

Input: a model and the options of compiling it, or an artefact; output: a document of plain data
with a format number; ``inspect_text`` renders it. Nothing is written and nothing is run. A model
that cannot be compiled is no error here: what is wrong with it is part of the document.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.codegen.artifact import Artifact
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import Target, VDevice
from ramforge.compiler.errors import Problem, UnsupportedModel
from ramforge.compiler.frontend import import_model
from ramforge.compiler.frontend.load import load
from ramforge.compiler.frontend.slim import SlimModel
from ramforge.compiler.ir import Array, Graph
from ramforge.compiler.pipeline import optimise
from ramforge.compiler.plan import Kind, Plan
from ramforge.compiler.schedule import POLICIES, find_policies
from ramforge.compiler.schedule.bounds import bounds
from ramforge.compiler.schedule.search import Scheduled, Search
from ramforge.compiler.version import VERSION
from ramforge.runtime import predict
from ramforge.runtime.progress import Report

if TYPE_CHECKING:
    import onnx

FORMAT = 1
Document = dict[str, Any]
Rows = list[dict[str, Any]]


def is_artifact(path: str | os.PathLike[str]) -> bool:
    """Whether a path names an artefact: its .cu file, or a folder."""
    return Path(path).suffix == ".cu" or Path(path).is_dir()


def of_model(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: Target,
    schedule: str,
    report: Report,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    dims: Mapping[str, int] | None = None,
    values: Mapping[str, Array] | None = None,
) -> Document:
    """Everything about a model; without plans if it has problems."""
    policies = find_policies(schedule)
    report("reading the model")
    slim = load(model)
    problems: tuple[Problem, ...] = ()
    graph = None
    try:
        graph = import_model(model, shapes=shapes or {}, dims=dims or {}, values=values or {})
    except UnsupportedModel as error:
        problems = error.problems
    document: Document = {
        "format": FORMAT,
        "kind": "model",
        "ramforge": VERSION,
        "model": slim.name,
        "target": {
            "name": target.name,
            "architecture": target.architecture,
            "sms": target.sms,
        },
        "operators": _operators(slim, problems),
        "problems": [asdict(problem) for problem in problems],
    }
    if graph is None:
        return document
    document["inputs"], document["outputs"] = (
        _ports(graph, names) for names in (graph.inputs, graph.answers)
    )
    report(f"optimising {len(graph.nodes)} nodes")
    graph = optimise(graph, target.precision)
    searches = tuple(search for _, search in predict.searches(graph, target, AnalyticCost()))
    plans = {}
    for policy in POLICIES.values():
        report(f"scheduling {len(searches[0].choices)} rOperators by {policy.name}")
        plans[policy.name] = predict.best(searches, policy)
    names = [policy.name for policy in policies]
    chosen = min(names, key=lambda name: plans[name][1].timeline.makespan_ns)
    made = {name: scheduled for name, (_, scheduled) in plans.items()}
    return document | _planned(plans[chosen][0], made, chosen)


def _operators(slim: SlimModel, problems: Iterable[Problem]) -> Rows:
    """The operators of the model as it was exported, the most frequent first."""
    troubled = {problem.node for problem in problems}
    count: Counter[str] = Counter()
    unsupported: Counter[str] = Counter()
    for node in slim.proto.graph.node:
        is_plain = node.domain in ("", "ai.onnx")
        label = node.op_type if is_plain else f"{node.domain}.{node.op_type}"
        count[label] += 1
        unsupported[label] += slim.origins[node.name].node in troubled
    return [
        {"operator": label, "nodes": number, "unsupported": unsupported[label]}
        for label, number in sorted(count.items(), key=lambda item: (-item[1], item[0]))
    ]


def _ports(graph: Graph, names: Iterable[str]) -> Rows:
    tensors = [graph.tensor(name) for name in names]
    return [
        {"name": tensor.name, "dtype": tensor.dtype.label, "shape": list(tensor.shape)}
        for tensor in tensors
    ]


def _planned(found: Search, plans: Mapping[str, Scheduled], chosen: str) -> Document:
    """What is known once there are plans."""
    best = plans[chosen]
    limits = bounds(found)
    kernels = _kernels(best)
    return {
        "schedule": chosen,
        "schedules": [_schedule(name, made) for name, made in plans.items()],
        "bounds": {
            "flops": limits.flops,
            "bytes": limits.moved_bytes,
            "floor_us": _microseconds(limits.floor_ns),
            "critical_path_us": _microseconds(limits.critical_path_ns),
            "critical_path": [best.operators[number].name for number in limits.chain],
        },
        "memory": {
            "workspace_bytes": best.memory.workspace_bytes,
            "peak_live_bytes": best.memory.peak_live_bytes,
            "weight_bytes": best.memory.weight_bytes,
        },
        "launches": _launches(best.plan, found.target),
        "families": _families(kernels),
        "kernels": kernels,
        "waves": _waves(best),
    }


def _schedule(name: str, made: Scheduled) -> dict[str, Any]:
    plan, timeline = made.plan, made.timeline
    return {
        "policy": name,
        "predicted_us": _microseconds(timeline.makespan_ns),
        "utilisation": round(timeline.utilisation, 4),
        "roperators": len(made.operators),
        "rtasks": sum(operator.tasks for operator in made.operators),
        "waves": plan.waves,
        "launches": len(plan.launches),
        "events": plan.events,
        "waits": plan.waits,
        "implied": plan.implied,
    }


def _kernels(made: Scheduled) -> Rows:
    """The distinct bodies, those that take the most vEU time first."""
    busy = _busy_ns(made)
    whole = float(busy.sum()) or 1.0
    rows: dict[str, dict[str, Any]] = {}
    for operator, spent in zip(made.operators, busy.tolist(), strict=True):
        body = operator.variant.body
        row = rows.setdefault(
            body.name,
            {"name": body.name, "family": body.family, "summary": body.summary}
            | {"roperators": 0, "rtasks": 0, "share": 0.0},
        )
        row["roperators"] += 1
        row["rtasks"] += operator.tasks
        row["share"] += spent / whole
    for row in rows.values():
        row["share"] = round(row["share"], 4)
    return sorted(rows.values(), key=lambda row: (-row["share"], row["name"]))


def _busy_ns(made: Scheduled) -> NDArray[np.float64]:
    """The vEU time of each rOperator."""
    timeline = made.timeline
    runs = timeline.kind == Kind.RUN
    spent = (timeline.end - timeline.start)[runs]
    whats = timeline.what[runs].astype(np.int64)
    busy: NDArray[np.float64] = np.zeros(len(made.operators))
    np.add.at(busy, whats, spent)
    return busy


def _families(kernels: Rows) -> Rows:
    found: dict[str, dict[str, Any]] = {}
    for kernel in kernels:
        row = found.setdefault(
            kernel["family"],
            {"family": kernel["family"], "kernels": 0, "roperators": 0, "rtasks": 0, "share": 0.0},
        )
        row["kernels"] += 1
        for name in ("roperators", "rtasks", "share"):
            row[name] += kernel[name]
    for row in found.values():
        row["share"] = round(row["share"], 4)
    return list(found.values())


def _waves(made: Scheduled) -> Rows:
    """From when to when each wave runs, and how much of the vEUs it keeps busy meanwhile."""
    timeline, plan = made.timeline, made.plan
    runs = np.flatnonzero(timeline.kind == Kind.RUN)
    steps = np.array(plan.steps, dtype=np.int64)[timeline.what[runs].astype(np.int64)]
    start = np.full(plan.waves, np.inf)
    end, busy, units = np.zeros((3, plan.waves))
    np.minimum.at(start, steps, timeline.start[runs])
    np.maximum.at(end, steps, timeline.end[runs])
    np.add.at(busy, steps, (timeline.end - timeline.start)[runs])
    units[steps] = timeline.units[timeline.launch[runs].astype(np.int64)]
    roperators = np.bincount(plan.steps, minlength=plan.waves)
    tasks = [operator.tasks for operator in made.operators]
    rtasks = np.bincount(plan.steps, tasks, minlength=plan.waves)
    return [
        {
            "wave": wave,
            "roperators": int(roperators[wave]),
            "rtasks": int(rtasks[wave]),
            "start_us": _microseconds(start[wave]),
            "end_us": _microseconds(end[wave]),
            "utilisation": round(float(busy[wave] / (units[wave] * (end[wave] - start[wave]))), 4),
        }
        for wave in range(plan.waves)
    ]


def _launches(plan: Plan, target: Target) -> Rows:
    """The kinds of launch, in the order in which they first come."""
    count: Counter[VDevice] = Counter()
    for launch in plan.launches:
        shape = launch.shape
        count[VDevice(target, shape.threads, shape.blocks_per_sm, shape.arena_bytes)] += 1
    return [
        {
            "launches": number,
            "veus": device.units,
            "blocks_per_sm": device.blocks_per_sm,
            "threads": device.threads,
            "arena_bytes": device.arena_bytes,
            "register_cap": None if target.is_host else device.register_cap,
        }
        for device, number in count.items()
    ]


def _microseconds(nanoseconds: float) -> float:
    return round(float(nanoseconds) / 1e3, 3)


def of_artifact(artifact: Artifact) -> Document:
    """What the manifest of an artefact says."""
    manifest = artifact.manifest
    kernels: dict[str, dict[str, Any]] = {}
    for operator in manifest.get("roperators", ()):
        name = operator["body"]
        row = kernels.setdefault(
            name,
            {"name": name, "family": name.rpartition("_")[0], "roperators": 0, "rtasks": 0},
        )
        row["roperators"] += 1
        row["rtasks"] += operator["tasks"]
    memory = manifest["memory"]
    return {
        "format": FORMAT,
        "kind": "artifact",
        "source": str(artifact.source),
        "ramforge": manifest.get("ramforge"),
        "model": manifest.get("model"),
        "options": manifest.get("options", {}),
        "target": manifest["target"],
        "inputs": manifest["inputs"],
        "outputs": manifest["outputs"],
        "weights": manifest["weights"],
        "memory": {name: value for name, value in memory.items() if name != "buffers"}
        | {"buffers": len(memory.get("buffers", ()))},
        "schedule": manifest["schedule"],
        "kernels": sorted(kernels.values(), key=lambda row: (-row["rtasks"], row["name"])),
    }
