"""From a program to the text of its one CUDA file. Pure: the same program gives the same bytes."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import numpy as np

from ramforge.codegen import parts, sections, tables
from ramforge.codegen.weights import Weights
from ramforge.compiler.ir import Graph
from ramforge.compiler.pipeline import Program
from ramforge.compiler.plan import Kind, Plan
from ramforge.compiler.rprogram import Body
from ramforge.compiler.version import VERSION

_ALWAYS = (
    "platform.cuh",
    "sync.cuh",
    "math.cuh",
    "tile_simt.cuh",
    "tile_host.cuh",
    "program.cuh",
)
_COMMENT_WIDTH = 100
CONTROL_HEADER_WORDS = 16


@dataclass(frozen=True, slots=True)
class Names:
    """What the files are called, without their folder."""

    source: str
    weights: str

    @property
    def stem(self) -> str:
        return self.source.rsplit(".", 1)[0]


def render(program: Program, weights: Weights, names: Names) -> str:
    template = _environment().get_template("program.cu.j2")
    return template.render(_context(program, weights, names))


@cache
def _environment() -> jinja2.Environment:
    folder = resources.files("ramforge.codegen.templates")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.globals.update(rule=sections.rule, PART=sections.PART)
    return environment


def _context(program: Program, weights: Weights, names: Names) -> dict[str, Any]:
    bodies = _bodies(program)
    numbers = {body["name"]: body["number"] for body in bodies}
    operands, operators = _operand_rows(program, numbers)
    kernels = kernels_of(program.plan)
    numbers_of_kernels = [
        kernels.index(launch.shape.blocks_per_sm) for launch in program.plan.launches
    ]
    rows = tables.tables(program.plan, program.operators, numbers_of_kernels)
    return {
        **_header(program, weights, names),
        **_ports(program.graph),
        "roperator_names": [c_string(op.name) for op in program.operators] or ['""'],
        "constants": _constants(program, weights, names),
        "library": [_library(name) for name in _ALWAYS],
        "parts": parts.named(_named(program)),
        "bodies": bodies,
        "operands": operands,
        "operators": operators,
        "entries": rows.entries or ["{RF_SIGNAL, 0, 0, 1, 0, 0, 0, 0},"],
        "events": rows.events or ["{0, 1, 1},"],
        "launches": rows.launches or ["{0, 0, 1, 0},"],
        "kernels": kernels or [1],
        "starts": _starts(program.plan, kernels),
        "lanes": _library("lanes.cuh"),
        "host": _host_parts(),
    }


def kernels_of(plan: Plan) -> list[int]:
    """The blocks on an SM of each kernel: launches that have the same share one."""
    return list(dict.fromkeys(launch.shape.blocks_per_sm for launch in plan.launches))


def _starts(plan: Plan, kernels: Sequence[int]) -> list[str]:
    """What the host has to know to launch each kernel."""
    rows = []
    for launch in plan.launches:
        kernel = kernels.index(launch.shape.blocks_per_sm)
        numbers = f"{launch.lanes}, {launch.shape.arena_bytes}"
        rows.append(f"{{(const void*)rf_kernel_{kernel}, {numbers}}},")
    return rows or ["{(const void*)rf_kernel_0, 1, 0},"]


def _host_parts() -> list[str]:
    names = ("weights.cuh", "report.cuh", "run_host.cuh", "run_cuda.cuh", "main.cuh")
    weights, report, host, cuda, main = map(_library, names)
    return [
        f"#if !defined(RF_EMULATE)\n{weights}",
        report,
        f"#if defined(__CUDACC__)\n{cuda}#else\n{host}#endif\n",
        f"{main}#endif\n",
    ]


@cache
def _library(name: str) -> str:
    return (resources.files("ramforge.kernels.lib") / name).read_text(encoding="utf-8")


def _named(program: Program) -> str:
    """Everything that names parts of the library."""
    texts = {operator.variant.body.text for operator in program.operators}
    texts |= {operator.variant.body.prefetch for operator in program.operators}
    return "\n".join(sorted(texts))


def _header(program: Program, weights: Weights, names: Names) -> dict[str, Any]:
    plan, target = program.plan, program.target
    tasks = sum(operator.tasks for operator in program.operators)
    kilobytes = program.memory.workspace_bytes / 1024
    return {
        "title": f"{names.source}: made by ramforge {VERSION}. Do not edit.",
        "model": tables.printable(program.graph.name),
        "target": f"{target.name} ({target.description}): {units_text(program)}",
        "schedule": ", ".join(
            [
                f"{plan.policy}: {counted(len(program.operators), 'rOperator')}",
                counted(tasks, "rTask"),
                counted(plan.waves, "wave"),
                counted(plan.events, "event"),
                counted(len(plan.launches), "launch", "launches"),
            ]
        ),
        "memory": f"{kilobytes:.0f} KB workspace, {weights.nbytes / 1024:.0f} KB weights",
        "inputs": [_port(program.graph, name) for name in program.graph.inputs] or ["none"],
        "outputs": [_port(program.graph, name) for name in program.graph.answers],
        "weights": f"{names.weights} (sha256 {weights.digest[:16]}...)",
        "architecture": "sm_90a" if target.is_host else target.architecture,
        "file": shlex.quote(names.source),
        "program": shlex.quote(names.stem),
        "run": shlex.quote(f"./{names.stem}"),
        "weights_file": shlex.quote(names.weights),
    }


def units_text(program: Program) -> str:
    """The vEUs of the launches: SMs times blocks."""
    sms = program.target.sms
    blocks = sorted({launch.shape.blocks_per_sm for launch in program.plan.launches}) or [1]
    return " and ".join(f"{sms * n} vEUs, {sms} SMs x {n}" for n in blocks)


def counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _port(graph: Graph, name: str) -> str:
    tensor = graph.tensor(name)
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    return f"{tables.printable(name)} {tensor.dtype.label} {shape}"


def _constants(program: Program, weights: Weights, names: Names) -> list[str]:
    graph, plan = program.graph, program.plan
    lanes = max((launch.lanes for launch in plan.launches), default=1)
    arena = max((launch.shape.arena_bytes for launch in plan.launches), default=0)
    host_arena = max((op.variant.body.host_arena_bytes for op in program.operators), default=0)
    values: dict[str, int | str] = {
        "RF_MODEL": c_string(graph.name),
        "RF_WEIGHTS_FILE": c_string(names.weights),
        "RF_WEIGHTS_DIGEST": c_string(weights.digest),
        "RF_INPUTS": len(graph.inputs),
        "RF_OUTPUTS": len(graph.outputs),
        "RF_CHECKS": len(graph.checks),
        "RF_SPACES": 2 + len(graph.inputs) + len(graph.outputs),
        "RF_THREADS": program.target.threads,
        "RF_LANES": lanes,
        "RF_LAUNCHES": max(1, len(plan.launches)),
        "RF_ARENA_BYTES": arena,
        "RF_HOST_ARENA_BYTES": f"{host_arena}ull",
        "RF_CONTROL_WORDS": CONTROL_HEADER_WORDS + plan.counters,
        "RF_WORKSPACE_BYTES": f"{program.memory.workspace_bytes}ull",
        "RF_WEIGHT_BYTES": f"{weights.nbytes}ull",
    }
    return [f"{key} {value}" for key, value in values.items()]


def _bodies(program: Program) -> list[dict[str, Any]]:
    """Distinct bodies in the order of first use, each with the ONNX nodes that it serves."""
    users: dict[str, list[str]] = {}
    found: dict[str, Body] = {}
    kernels = _kernels_of_bodies(program)
    everywhere = (1 << len(kernels_of(program.plan))) - 1
    for operator in program.operators:
        body = operator.variant.body
        found.setdefault(body.name, body)
        users.setdefault(body.name, []).append(" + ".join(map(tables.printable, operator.origin)))
    return [
        {
            "number": number,
            "name": name,
            "summary": body.summary,
            "text": "\n".join(f"    {line}" if line else "" for line in body.text.splitlines()),
            "prefetch": body.prefetch,
            "only": "" if kernels[name] == everywhere else hex(kernels[name]),
            "users": [line for user in users[name] for line in _wrapped(user)],
        }
        for number, (name, body) in enumerate(found.items())
    ]


def _kernels_of_bodies(program: Program) -> dict[str, int]:
    """A bit for each kernel that runs a body."""
    kernels = kernels_of(program.plan)
    found: dict[str, int] = {}
    for launch in program.plan.launches:
        bit = 1 << kernels.index(launch.shape.blocks_per_sm)
        for what in np.unique(launch.rows.what[launch.rows.of_kind(Kind.RUN)]):
            name = program.operators[what].variant.body.name
            found[name] = found.get(name, 0) | bit
    return found


def _wrapped(text: str) -> list[str]:
    """A list of nodes as comment lines; what goes on is indented further."""
    return textwrap.wrap(
        text,
        _COMMENT_WIDTH,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _operand_rows(program: Program, bodies: dict[str, int]) -> tuple[list[str], list[str]]:
    operands: list[str] = []
    operators: list[str] = []
    for operator in program.operators:
        variant = operator.variant
        name = tables.printable(operator.name)
        operators.append(f"{{{bodies[variant.body.name]}, {len(operands)}}},  // {name}")
        for operand in variant.operands:
            place = program.memory.places[operand]
            assert place.offset % 16 == 0
            operands.append(
                f"{{{place.space}, {place.offset // 16}u}},  // {tables.printable(operand)}"
            )
    return operands or ["{0, 0u},"], operators or ["{0, 0},"]


def _ports(graph: Graph) -> dict[str, str]:
    tensors = [graph.tensor(name) for name in (*graph.inputs, *graph.outputs)]
    checks = list(graph.checks.values()) or [""]
    kinds = [f"{tensor.dtype.label}[{'x'.join(map(str, tensor.shape))}]" for tensor in tensors]
    return {
        "port_names": _joined([c_string(tensor.name) for tensor in tensors]),
        "port_types": _joined([c_string(kind) for kind in kinds]),
        "port_bytes": _joined([f"{tensor.nbytes}ull" for tensor in tensors]),
        "checks": _joined([c_string(message) for message in checks]),
    }


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(parts)


def c_string(text: str) -> str:
    """A C string literal; anything beyond plain ASCII as octal escapes, which end by themselves."""
    encoded = text.encode("utf-8", "surrogateescape")
    plain = "".join(
        chr(byte) if re.match(r"[ -~]", chr(byte)) and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in encoded
    )
    return f'"{plain}"'


def manifest_text(table: dict[str, Any]) -> str:
    # NumPy's integers are numbers too
    return json.dumps(table, indent=2, default=int) + "\n"
