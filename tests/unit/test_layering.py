"""The floors of the house: no import runs up, and none in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = {part: ROOT / part for part in ("compiler", "codegen", "kernels", "runtime")}
PARTS["zoo"] = ROOT / "examples/models"
GROUND = ("errors", "expressions", "ir", "registry", "rprogram", "version")


def module_files() -> dict[str, Path]:
    """Every module by the name that it is imported under."""
    files: dict[str, Path] = {}
    for path in (ROOT / "ramforge").glob("*.py"):
        files["ramforge" if path.stem == "__init__" else f"ramforge.{path.stem}"] = path
    for part, folder in PARTS.items():
        for path in folder.rglob("*.py"):
            names = ("ramforge", part, *path.relative_to(folder).with_suffix("").parts)
            files[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return files


def floor(module: str) -> int:
    """0 ground and zoo, 1 kernels and the compiler, 2 codegen, 3 runtime, 4 the public face."""
    names = module.split(".")
    part = names[1] if len(names) > 1 else ""
    if part == "compiler":
        # The package itself holds only a docstring, and every module below imports through it.
        return 0 if len(names) == 2 or names[2] in GROUND else 1
    return {"zoo": 0, "kernels": 1, "codegen": 2, "runtime": 3}.get(part, 4)


def is_type_checking(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that can run, at module level or inside functions."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and is_type_checking(child.test):
            for other in child.orelse:
                yield from statements(ast.Module([other], []))
        else:
            yield from statements(child)


def imports(module: str, source: str, known: set[str], is_package: bool = False) -> set[str]:
    """The modules of ours that this one imports."""
    found: set[str] = set()
    for statement in statements(ast.parse(source)):
        if isinstance(statement, ast.Import):
            found.update(alias.name for alias in statement.names)
            continue
        base = statement.module or ""
        if statement.level:
            above = module.split(".")[: -statement.level + is_package or None]
            base = ".".join([*above, *([base] if base else [])])
        for alias in statement.names:
            inner = f"{base}.{alias.name}"
            found.add(inner if inner in known else base)
    return {name for name in found if name in known and name != module}


def edges() -> set[tuple[str, str]]:
    files = module_files()
    known = set(files)
    return {
        (module, other)
        for module, path in files.items()
        for other in imports(module, path.read_text(), known, path.name == "__init__.py")
    }


def test_no_import_runs_up() -> None:
    wrong = sorted(f"{low} -> {high}" for low, high in edges() if floor(high) > floor(low))
    assert wrong == []


def test_no_import_runs_in_a_circle() -> None:
    components = networkx.strongly_connected_components(networkx.DiGraph(edges()))
    assert [sorted(component) for component in components if len(component) > 1] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import ramforge.b", {"ramforge.b"}),
        ("from ramforge import b", {"ramforge.b"}),
        ("from ramforge.b import name", {"ramforge.b"}),
        ("def f():\n    from ramforge.b import name", {"ramforge.b"}),
        ("from . import b", {"ramforge.b"}),
        ("from .b import name", {"ramforge.b"}),
        ("if TYPE_CHECKING:\n    from ramforge.b import name", set()),
        ("if typing.TYPE_CHECKING:\n    pass\nelse:\n    import ramforge.b", {"ramforge.b"}),
        ("import numpy", set()),
    ],
)
def test_imports_are_seen_however_they_are_written(source: str, expected: set[str]) -> None:
    assert imports("ramforge.a", source, {"ramforge.a", "ramforge.b"}) == expected


def test_a_package_imports_from_itself() -> None:
    known = {"ramforge.p", "ramforge.p.a"}
    assert imports("ramforge.p", "from .a import x", known, is_package=True) == {"ramforge.p.a"}


def test_the_floors_are_as_drawn() -> None:
    order = ("compiler.ir", "kernels.conv", "codegen.render", "runtime.session")
    assert [floor(f"ramforge.{name}") for name in order] == [0, 1, 2, 3]
    assert floor("ramforge.compiler.passes.fuse") == floor("ramforge.kernels.conv")
    assert floor("ramforge.compiler.expressions.term") == 0
    assert floor("ramforge") == 4
