"""What ``bench.bodies`` finds out about bodies, and the table that is kept of all of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from ramforge.codegen.build import linked, toolchain
from ramforge.codegen.build.cubin import Resources
from ramforge.codegen.build.nvdisasm import Instruction
from ramforge.codegen.build.sass import Outline
from ramforge.compiler.device import PRECISIONS
from ramforge.compiler.errors import ArtifactError
from ramforge.compiler.registry import families
from ramforge.kernels.tiles import TILES
from ramforge.runtime.bench import bodies, body_cases
from ramforge.runtime.bench.bodies import Counts, Document, Figures, Row

DOCS = Path(__file__).parents[2] / "docs"
LOADS = (Counts(4, 1), Counts(0, 5), Counts(6, 0))
FIGURES = Figures(64, 0, 2048, Outline(30, 40, 20, 0), *LOADS, Counts(0, 8))

ROW = Row("softmax", "fp32", 256, "softmax of rows of 1024", "sm_80", 4, 0, FIGURES)
HAS_TOOLS = toolchain.find_nvdisasm() is not None and not linked.obstacle()


def test_figures_of_code() -> None:
    loop = [
        Instruction("LDG.E.128", "R4,[R2.64]"),
        Instruction("FFMA", "R8,R4,R5,R8"),
        Instruction("STL", "[R1],R8"),
        Instruction("BRA", "0x10", "P0"),
    ]
    code = [Instruction("STL", "[R1+0x4],R9"), *loop, Instruction("STG.E", "[R2.64],R8")]
    found = bodies.figures(Resources(40, 12, 0, 96), [*code, Instruction("EXIT")])
    assert found.outline == Outline(1, 4, 0, 1) and found.outline.math_share == 0.25
    assert found.registers == 40 and found.spill_bytes == 12
    assert found.global_loads == Counts(1, 0) and found.stores == Counts(0, 1)


def test_a_document_comes_back_from_its_file(tmp_path: Path) -> None:
    document = Document("0.0", (ROW, replace(ROW, architecture="sm_90a")))
    path = tmp_path / "bodies.json"
    bodies.write(document, path, tmp_path / "page.md")
    assert bodies.read(path) == document
    page = (tmp_path / "page.md").read_text()
    assert "## sm_90a" in page and "| 75% | 40 + 20 | 4 / 1 |" in page
    path.write_text("{}")
    with pytest.raises(ArtifactError, match="measure again"):
        bodies.read(path)


def test_kinds_are_renewed_and_what_is_no_kind_any_more_goes() -> None:
    old = [ROW, replace(ROW, kind="normalize"), replace(ROW, kind="gone")]
    new = [replace(ROW, blocks_per_sm=2)]
    found = bodies.renewed(old, new, ["softmax"])
    assert found == (new[0], old[1])


@pytest.mark.skipif(not HAS_TOOLS, reason="nvdisasm, NVRTC or nvJitLink is not installed")
def test_some_bodies_are_compiled_and_disassembled(tmp_path: Path) -> None:
    data, text = tmp_path / "bodies.json", tmp_path / "page.md"
    arguments = ("mean of rows", "map, sum of two", "--json", str(data), "--markdown", str(text))
    result = CliRunner().invoke(bodies.main, arguments)
    assert result.exit_code == 0, result.output
    found = bodies.read(data).rows
    assert {(row.kind, row.architecture) for row in found} == {
        (kind, name) for kind in ("mean of rows", "map, sum of two") for name in ("sm_80", "sm_90a")
    }
    for row in found:
        made = row.figures
        assert 0 < made.registers <= 255 and made.code_bytes > 500
        assert 0 < made.outline.math_share < 1
        assert made.global_loads.wide + made.global_loads.narrow > 0
        assert made.stores.wide + made.stores.narrow > 0


def test_an_unknown_kind_is_told_with_the_known_ones() -> None:
    result = CliRunner().invoke(bodies.main, ("sofftmax",))
    assert result.exit_code == 2 and "unknown: sofftmax" in result.output


def test_the_page_is_made_from_the_data() -> None:
    document = bodies.read(DOCS / "results" / "bodies.json")
    assert (DOCS / "BODIES.md").read_text(encoding="utf-8") == bodies.page(document)
    assert json.loads(bodies.as_json(document))["format"] == bodies.FORMAT


def test_the_table_has_every_kind_every_family_and_every_tile() -> None:
    rows = bodies.read(DOCS / "results" / "bodies.json").rows
    cases = body_cases.cases()
    assert {row.kind for row in rows} == {case.kind for case in cases}
    assert {case.family for case in cases} == {family.name for family in families()}
    for architecture in ("sm_80", "sm_90a"):
        for precision in PRECISIONS:
            found = {
                row.summary.rpartition("tiles of ")[2]
                for row in rows
                if (row.architecture, row.precision) == (architecture, precision)
                and row.kind == "product, packed"
            }
            assert found == {f"{tile.m} x {tile.n}" for tile in TILES}


def test_every_body_knows_that_the_arena_is_shared_memory() -> None:
    """Then nothing of 16 bytes is read from memory of which it does not know what it is."""
    rows = bodies.read(DOCS / "results" / "bodies.json").rows
    assert not [row for row in rows if row.figures.generic_loads.wide]


# Known, and to go: runs of three channels are copied one by one.
SPILLING = {
    ("convolution, 3 channels", "fp16", "128 x 64"),
    ("convolution, 3 channels", "fp16", "64 x 32"),
}


def test_no_body_spills_inside_a_loop() -> None:
    rows = bodies.read(DOCS / "results" / "bodies.json").rows
    found = {
        (row.kind, row.precision, row.summary.rpartition("tiles of ")[2])
        for row in rows
        if row.figures.outline.stack_accesses_in_loops
    }
    assert found == SPILLING
