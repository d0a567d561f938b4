"""What there is to know about a model before it is compiled, or about an artefact afterwards.

Input: a model and the options of compiling it, or an artefact; output: a document of plain data
with a format number, and its rendering as tables. Nothing is written and nothing is run. A model
that cannot be compiled is no error here: what is wrong with it is part of the document.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
from ramforge.compiler.ir import Graph
from ramforge.compiler.pipeline import optimise
from ramforge.compiler.plan import Kind, Plan
from ramforge.compiler.schedule import POLICIES, find_policies
from ramforge.compiler.schedule.bounds import bounds
from ramforge.compiler.schedule.search import Scheduled, Search
from ramforge.compiler.version import VERSION
from ramforge.runtime import predict
from ramforge.runtime.progress import Report
from ramforge.runtime.tables import Table

if TYPE_CHECKING:
    import onnx

FORMAT = 1
# Of kernels and of waves, in the tables; the document has all of them.
MOST_ROWS = 12
MOST_TEXT = 50

# What is counted of a schedule, and what that is called in the tables.
_COUNTS = {
    "roperators": "rOperators",
    "rtasks": "rTasks",
    "waves": "waves",
    "launches": "launches",
    "events": "events",
    "waits": "waits",
    "implied": "implied",
}

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
) -> Document:
    """Everything about a model; without plans if it has problems."""
    policies = find_policies(schedule)
    report("reading the model")
    slim = load(model)
    problems: tuple[Problem, ...] = ()
    graph = None
    try:
        graph = import_model(model, shapes=shapes or {}, dims=dims or {})
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
        _ports(graph, names) for names in (graph.inputs, graph.outputs)
    )
    report(f"optimising {len(graph.nodes)} nodes")
    graph = optimise(graph)
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


def render(document: Document) -> str:
    """The document as text."""
    parts = _artifact_parts if document["kind"] == "artifact" else _model_parts
    return "\n\n".join(parts(document))


def _model_parts(document: Document) -> list[str]:
    target = document["target"]
    head = f"{document['model']} for {target['name']} ({target['sms']} SMs)"
    operators = Table(
        "Operators of the model",
        ("operator", "nodes", "supported"),
        [
            (row["operator"], str(row["nodes"]), _supported(row["nodes"], row["unsupported"]))
            for row in document["operators"]
        ],
    )
    parts = [head, operators.plain()]
    if document["problems"]:
        problems = tuple(Problem(**problem) for problem in document["problems"])
        return [*parts, str(UnsupportedModel(document["model"], problems))]
    return [
        *parts,
        _port_table(document).plain(),
        *_schedule_parts(document),
        _memory_text(document["memory"]),
        _launch_table(document["launches"]).plain(),
        *_kernel_parts(document),
        _wave_table(document["waves"]).plain(),
    ]


def _supported(nodes: int, unsupported: int) -> str:
    if not unsupported:
        return "yes"
    return "no" if unsupported == nodes else f"no: {unsupported} of {nodes}"


def _port_table(document: Document) -> Table:
    rows = [
        (kind, row["name"], row["dtype"], "x".join(map(str, row["shape"])) or "scalar")
        for kind in ("inputs", "outputs")
        for row in document[kind]
    ]
    return Table("Inputs and outputs", ("", "name", "type", "shape"), rows)


def _schedule_parts(document: Document) -> list[str]:
    limits = document["bounds"]
    table = Table(
        "Schedules, predicted by the cost model",
        ("policy", "us", "vEUs busy", *_COUNTS.values()),
        [
            (
                row["policy"] + (" (chosen)" if row["policy"] == document["schedule"] else ""),
                f"{row['predicted_us']:.1f}",
                f"{row['utilisation']:.0%}",
                *(str(row[name]) for name in _COUNTS),
            )
            for row in document["schedules"]
        ],
    )
    chosen = next(row for row in document["schedules"] if row["policy"] == document["schedule"])
    bound = (
        f"floor {limits['floor_us']:.1f} us ({_share(limits['floor_us'], chosen)} of the chosen "
        f"schedule): {limits['flops'] / 1e9:.3f} GFLOP, {_size(limits['bytes'])} to move\n"
        f"critical path {limits['critical_path_us']:.1f} us "
        f"({_share(limits['critical_path_us'], chosen)}): {len(limits['critical_path'])} rOperators"
    )
    return [table.plain(), bound]


def _share(part_us: float, chosen: dict[str, Any]) -> str:
    return f"{part_us / chosen['predicted_us']:.0%}" if chosen["predicted_us"] else "all"


def _memory_text(memory: dict[str, Any]) -> str:
    weights = f", {_size(memory['weight_bytes'])} weights" if "weight_bytes" in memory else ""
    return (
        f"Memory: {_size(memory['workspace_bytes'])} workspace, of which "
        f"{_size(memory['peak_live_bytes'])} live at once{weights}"
    )


def _launch_table(launches: Rows) -> Table:
    names = ("launches", "veus", "blocks_per_sm", "threads", "arena_bytes", "register_cap")
    head = ("launches", "vEUs", "blocks per SM", "threads", "arena bytes", "registers at most")
    rows = [
        tuple("" if row[name] is None else str(row[name]) for name in names) for row in launches
    ]
    return Table("Launches", head, rows)


def _kernel_parts(document: Document) -> list[str]:
    families = Table(
        "Kernel families",
        ("family", "kernels", "rOperators", "rTasks", "of the vEU time"),
        [
            (
                row["family"],
                *(str(row[name]) for name in ("kernels", "roperators", "rtasks")),
                f"{row['share']:.1%}",
            )
            for row in document["families"]
        ],
    )
    kernels = document["kernels"]
    table = Table(
        f"Kernels{_of(len(kernels), 'most vEU time')}",
        ("name", "of the vEU time", "rOperators", "rTasks", "what each of them computes"),
        [
            (
                row["name"],
                f"{row['share']:.1%}",
                *(str(row[name]) for name in ("roperators", "rtasks")),
                _shortened(row["summary"]),
            )
            for row in kernels[:MOST_ROWS]
        ],
    )
    return [families.plain(), table.plain()]


def _wave_table(waves: Rows) -> Table:
    longest = sorted(waves, key=lambda row: row["start_us"] - row["end_us"])[:MOST_ROWS]
    rows = [
        (
            *(str(row[name]) for name in ("wave", "roperators", "rtasks")),
            *(f"{row[name]:.1f}" for name in ("start_us", "end_us")),
            f"{row['utilisation']:.0%}",
        )
        for row in sorted(longest, key=lambda row: row["wave"])
    ]
    head = ("wave", "rOperators", "rTasks", "from us", "to us", "vEUs busy")
    return Table(f"Waves{_of(len(waves), 'longest')}", head, rows)


def _of(number: int, which: str) -> str:
    """What a title says if a table is cut."""
    return f": the {MOST_ROWS} with the {which} of {number}" if number > MOST_ROWS else ""


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 3] + "..."


def _artifact_parts(document: Document) -> list[str]:
    target, schedule = document["target"], document["schedule"]
    options = ", ".join(f"{name} {value}" for name, value in document["options"].items() if value)
    head = (
        f"{document['source']}: {document['model']} for {target['name']}, "
        f"made by ramforge {document['ramforge']}"
    )
    names = {"policy": "policy", "predicted_us": "predicted us", **_COUNTS}
    kept = [name for name in names if isinstance(schedule.get(name), int | float | str)]
    plan = Table(
        "Schedule", [names[name] for name in kept], [[str(schedule[name]) for name in kept]]
    )
    kernels = document["kernels"]
    table = Table(
        f"Kernels{_of(len(kernels), 'most rTasks')}",
        ("name", "rOperators", "rTasks"),
        [(row["name"], str(row["roperators"]), str(row["rtasks"])) for row in kernels[:MOST_ROWS]],
    )
    weights = document["weights"]
    return [
        head + (f"\noptions: {options}" if options else ""),
        _port_table(document).plain(),
        plan.plain(),
        f"{_memory_text(document['memory'])}\n"
        f"Weights: {_size(weights['bytes'])} in {weights['file']}",
        _artifact_launches(schedule.get("launches", [])).plain(),
        table.plain(),
    ]


def _artifact_launches(launches: Sequence[dict[str, Any]]) -> Table:
    names = ("kernel", "lanes", "blocks_per_sm", "threads", "arena_bytes")
    count = Counter(tuple(str(launch.get(name, "")) for name in names) for launch in launches)
    rows = [(str(number), *row) for row, number in count.items()]
    head = ("launches", "kernel", "vEUs", "blocks per SM", "threads", "arena bytes")
    return Table("Launches", head, rows)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count} B"
        count /= 1000
    return f"{count:.1f} GB"
