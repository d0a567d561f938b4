"""Every error a user can meet, each with what was expected, what was found and one fix.

The classes carry the exit code of the command line, so that no other place maps errors to codes.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_MODEL = 3
EXIT_ENVIRONMENT = 4
EXIT_CHECK = 5


class RamforgeError(Exception):
    """The root of all errors raised on purpose."""

    exit_code = EXIT_INTERNAL


class CompileError(RamforgeError):
    """The model cannot be compiled."""

    exit_code = EXIT_MODEL


class OptionError(CompileError):
    """An option has a value that there is not."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing about a model that stops compilation."""

    node: str
    operator: str
    reason: str
    fix: str

    def __str__(self) -> str:
        where = f"{self.operator} {self.node!r}" if self.operator else self.node
        return f"{where}: {self.reason}\n    fix: {self.fix}"


class UnsupportedModel(CompileError):
    """The model was read, and these are all the problems it has."""

    def __init__(self, model: str, problems: tuple[Problem, ...]) -> None:
        self.model = model
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"{model}: {count}", *(f"  {problem}" for problem in problems)]
        super().__init__("\n".join(lines))


MISFIT_FIX = "check the model with ONNX Runtime; if it runs there, this is a bug of ramforge"


def misfit(error: Exception) -> str:
    """The reason if an operator could not make sense of a node."""
    return f"its attributes and operands do not fit together ({type(error).__name__}: {error})"


class InvalidModel(CompileError):
    """The file is not a readable ONNX model."""


class ShapeError(RamforgeError):
    """An array's shape or type is not what the model was compiled for."""

    exit_code = EXIT_MODEL


class ArtifactError(RamforgeError):
    """An artefact or a path cannot be read or written."""

    exit_code = EXIT_ENVIRONMENT


class ToolchainError(RamforgeError):
    """A compiler is missing or refuses the emitted text."""

    exit_code = EXIT_ENVIRONMENT


class DeviceError(RamforgeError):
    """The device is missing or a run on it failed."""

    exit_code = EXIT_ENVIRONMENT


class VerificationError(RamforgeError):
    """A result differs from its reference by more than the tolerance."""

    exit_code = EXIT_CHECK
