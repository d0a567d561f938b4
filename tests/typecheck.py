"""Run mypy on the packages as they are imported.

The folders compiler/, codegen/, kernels/ and runtime/ are parts of the package ``ramforge``, which
mypy only understands from a tree of that shape: one of symlinks is made, and messages are mapped
back to the real paths.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / ".typecheck"
PARTS = {
    "compiler": "compiler",
    "codegen": "codegen",
    "kernels": "kernels",
    "runtime": "runtime",
    "zoo": "examples/models",
}
EXAMPLES = ("demo.py", "fit.py", "gradients")


def make_tree() -> None:
    """``.typecheck`` with a link to each module and part of ramforge, and to the examples.

    Links that are right stay, so that two runs at once do not pull the tree from under each other.
    """
    links = {}
    for entry in (ROOT / "ramforge").iterdir():
        if entry.suffix in (".py", ".typed"):
            links[TREE / "ramforge" / entry.name] = entry
    links.update({TREE / "ramforge" / part: ROOT / folder for part, folder in PARTS.items()})
    links.update({TREE / "examples" / name: ROOT / "examples" / name for name in EXAMPLES})
    for folder in (TREE / "ramforge", TREE / "examples"):
        folder.mkdir(parents=True, exist_ok=True)
    for old in (path for folder in ("ramforge", "examples") for path in (TREE / folder).iterdir()):
        if old.is_symlink() and (old not in links or old.readlink() != links[old]):
            old.unlink()
    for link, target in links.items():
        if not link.is_symlink():
            link.symlink_to(target)


def real_paths(text: str) -> str:
    """Messages with the paths of the working tree."""
    parts = "|".join(PARTS)
    pattern = rf"(?m)^(?:\.typecheck/)?ramforge/({parts})/"
    text = re.sub(pattern, lambda found: f"{PARTS[found[1]]}/", text)
    return re.sub(r"(?m)^\.typecheck/", "", text)


def main() -> int:
    """mypy's exit status."""
    make_tree()
    command = (
        *(sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")),
        *("--cache-dir", str(ROOT / ".mypy_cache"), "--explicit-package-bases"),
        *("--namespace-packages", "-p", "ramforge", "-p", "examples"),
    )
    environment = {**os.environ, "MYPYPATH": str(TREE)}
    done = subprocess.run(command, cwd=TREE, env=environment, capture_output=True, text=True)
    sys.stdout.write(real_paths(done.stdout))
    sys.stderr.write(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
