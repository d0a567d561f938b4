"""The documents of ``inspect`` as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ramforge.compiler.errors import Problem, UnsupportedModel
from ramforge.runtime.inspect import Document, Rows
from ramforge.runtime.tables import Table

# Of kernels and of waves; the document has all of them.
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


def render(document: Document) -> str:
    """The document as text."""
    parts = _artifact_parts if document["kind"] == "artifact" else _model_parts
    built = document.get("built")
    return "\n\n".join([*parts(document), *(_built_parts(built) if built else ())])


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


def _built_parts(built: dict[str, Any]) -> list[str]:
    """What kernels and bodies take of a GPU; a unit of bytes would hide a few spilled ones."""
    names = ("registers", "shared_bytes", "spill_bytes", "code_bytes")
    head = ("registers", "shared bytes", "spilled bytes", "code bytes")
    kernels = Table(
        f"Kernels, built for {built['architecture']}",
        ("kernel", "registers at most", *head),
        [_built_row(row, ("name", "register_cap", *names)) for row in built["kernels"]],
    )
    bodies = Table(
        "Bodies, of which each kernel has those that it runs",
        ("body", "form", *head, "math", "stack in loops"),
        [
            _built_row(row, ("name", "form", *names, "math_share", "stack_accesses_in_loops"))
            for row in built["bodies"]
        ],
    )
    return [kernels.plain(), bodies.plain()]


def _built_row(row: dict[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    return tuple("" if row[name] is None else str(row[name]) for name in names)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count} B"
        count /= 1000
    return f"{count:.1f} GB"
