"""One network: the workspace under every schedule, and the peak of its program on the host.

python -m ramforge.runtime.bench.memory_child net.onnx figures.json
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.codegen import artifact as artifacts
from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import command, host
from ramforge.codegen.build.toolchain import find_host_compiler
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import Target, find_target
from ramforge.compiler.errors import DeviceError
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Graph
from ramforge.compiler.lower import Lowered
from ramforge.compiler.pipeline import attempts, finish, optimise, search
from ramforge.compiler.schedule import AUTO, POLICIES
from ramforge.compiler.schedule.search import Scheduled

HOST = "host:2"
TARGETS = (HOST, "h200")

# Runs a program and says the most memory it has had; by itself it is the program that does nothing.
# It is small, because a process starts with the peak of the one that started it.
_WATCH = r"""
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int count, char** arguments) {
  if (count < 2) return 0;
  const pid_t child = fork();
  if (child == 0) {
    execv(arguments[1], arguments + 1);
    _exit(127);
  }
  int status = 0;
  struct rusage usage;
  if (child < 0 || wait4(child, &status, 0, &usage) != child) return 1;
  fprintf(stderr, "\n%ld\n", usage.ru_maxrss);
  return status != 0;
}
"""
_MAXRSS_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Workspace:
    """What a plan takes, and the most that lives at once under its schedule."""

    target: str
    policy: str
    workspace_bytes: int
    live_peak_bytes: int

    @property
    def ratio(self) -> float:
        return self.workspace_bytes / self.live_peak_bytes if self.live_peak_bytes else 1.0


@dataclass(frozen=True, slots=True)
class Binary:
    """The stand-alone program for the host: ``peak_bytes`` is what it takes beyond an empty one."""

    weight_bytes: int
    workspace_bytes: int
    port_bytes: int
    peak_bytes: int
    empty_bytes: int

    @property
    def planned_bytes(self) -> int:
        return self.weight_bytes + self.workspace_bytes

    @property
    def ratio(self) -> float:
        return self.peak_bytes / self.planned_bytes if self.planned_bytes else 1.0


def workspaces(graph: Graph) -> tuple[list[Workspace], Scheduled, Lowered]:
    """Of an optimised graph on all targets by all policies; and the plan for the host."""
    found: list[Workspace] = []
    chosen = None
    for name in TARGETS:
        for policy, scheduled, lowered in _plans(graph, find_target(name)):
            memory = scheduled.memory
            found.append(Workspace(name, policy, memory.workspace_bytes, memory.peak_live_bytes))
            if (name, policy) == (HOST, AUTO):
                chosen = scheduled, lowered
    assert chosen is not None
    return found, *chosen


def _plans(graph: Graph, target: Target) -> Iterator[tuple[str, Scheduled, Lowered]]:
    """What the compiler takes by each policy, and of all of them by ``auto``."""
    cost = AnalyticCost()
    tried = [
        (policy.name, search(lowered, cost).best((policy,)), lowered)
        for lowered in attempts(graph, target, cost)
        for policy in POLICIES.values()
    ]
    for name in POLICIES:
        yield min((each for each in tried if each[0] == name), key=_predicted)
    yield (AUTO, *min(tried, key=_predicted)[1:])


def _predicted(plan: tuple[str, Scheduled, Lowered]) -> float:
    return plan[1].timeline.makespan_ns


def binary(artifact: Artifact, folder: Path) -> Binary:
    """Build the program of an artefact, and run it on inputs that it makes up."""
    watch = folder / "watch"
    compiler = find_host_compiler()
    product, _ = command.compile_text((*compiler.command, *host.host_flags(compiler)), _WATCH)
    watch.write_bytes(product)
    watch.chmod(0o755)
    program = host.build_program(artifact.source, folder / "program")
    empty = _peak_bytes(watch, [watch])
    peak = _peak_bytes(watch, [program, "--weights", artifact.weights])
    ports = (*artifact.inputs, *artifact.results)
    return Binary(
        weight_bytes=artifact.manifest["weights"]["bytes"],
        workspace_bytes=artifact.manifest["memory"]["workspace_bytes"],
        port_bytes=sum(math.prod(port.shape) * port.numpy.itemsize for port in ports),
        peak_bytes=peak - empty,
        empty_bytes=empty,
    )


def _peak_bytes(watch: Path, program: Sequence[Path | str]) -> int:
    done = subprocess.run([watch, *program], capture_output=True, text=True)
    if done.returncode:
        raise DeviceError(f"{program[0]}: {done.stderr.strip()}")
    return int(done.stderr.split()[-1]) * _MAXRSS_BYTES


@click.command()
@click.argument("model", type=Path)
@click.argument("output", type=Path)
def main(model: Path, output: Path) -> None:
    """Measure MODEL and write the figures to OUTPUT."""
    found, scheduled, lowered = workspaces(optimise(import_model(model)))
    with tempfile.TemporaryDirectory() as folder:
        artifact = artifacts.emit(finish(scheduled, lowered), Path(folder, "net.cu"), {})
        figures = {
            "plans": [asdict(each) for each in found],
            "binary": asdict(binary(artifact, Path(folder))),
        }
    output.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
