"""``ramforge verify`` against kernels and fusions that are wrong on purpose."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import ramforge
from ramforge.compiler import registry
from ramforge.compiler.errors import EXIT_CHECK, EXIT_USAGE, VerificationError
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import computation_of
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.passes import fuse
from ramforge.runtime import arrays, cli, onnx_files
from ramforge.runtime.verify import Tolerances
from ramforge.runtime.verify.bisect import Bisection
from ramforge.runtime.verify.layers import layers
from ramforge.runtime.verify.parts import Whole
from ramforge.runtime.verify.recipe import Recipe, recipe
from ramforge.runtime.verify.reference import Reference, Source
from ramforge.zoo import MODELS
from ramforge.zoo.builder import Builder

pytestmark = pytest.mark.usefixtures("quick_host")


class _Script:
    """The scripts as click's runner wants them: errors become exit codes in ``run_command``."""

    name = "ramforge"

    def main(self, args: list[str], prog_name: str, **extra: object) -> None:
        raise SystemExit(cli.run_command(cli.commands, args, "ramforge"))


def command(*arguments: str | Path) -> tuple[int, str, str]:
    """The exit code of a command, and what it wrote to stdout and stderr."""
    result = CliRunner().invoke(_Script(), [str(argument) for argument in arguments])
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stdout, result.stderr


def mlp_fixed() -> onnx.ModelProto:
    """The perceptron with a batch of two."""
    model = MODELS["mlp"]()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    return model


def chain() -> onnx.ModelProto:
    """Two convolutions, the second with a sum and a Relu behind it."""
    builder = Builder("chain")
    x = builder.input("x", (1, 4, 8, 8))
    first = builder.node("Relu", [builder.convolution(x, "conv1", 4, 4, 3)], "relu1")
    second = builder.convolution(first, "conv2", 4, 4, 3)
    added = builder.node("Add", [second, first], "add")
    return builder.finish([builder.node("Relu", [added], "relu2", "y")])


MADE = {**MODELS, "mlp_fixed": mlp_fixed, "chain": chain}


def compiled(name: str, folder: Path) -> tuple[Path, Path]:
    """An artefact for the host, and its model."""
    model, source = folder / f"{name}.onnx", folder / f"{name}.cu"
    onnx.save(MADE[name](), model)
    ramforge.compile(model, target="host:2", output=source)
    return source, model


Where = Callable[[Node, Graph], bool]


def distort(monkeypatch: pytest.MonkeyPatch, op: str, where: Where) -> None:
    """Let an operator compute one hundredth too much in some places."""
    operator = registry.find(op)
    assert operator is not None

    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        *before, last = operator.express(node, graph)
        return (*before, too_much(last) if where(node, graph) else last)

    monkeypatch.setitem(registry._OPERATORS, op, replace(operator, express=express))


def too_much(node: Node) -> Node:
    computation = computation_of(node)
    hole, factor = (
        terms.hole(computation.dtype),
        terms.const(1.01, computation.dtype),
    )
    return node.with_attrs(computation=computation.then(terms.apply("mul", hole, factor)))


def named(*names: str) -> Where:
    return lambda node, graph: any(name.endswith(names) for name in node.origin)


def strided(node: Node, graph: Graph) -> bool:
    return node.attr("strides") == (2, 2) and graph.tensor(node.inputs[0]).shape[-1] == 8


def fuse_wrongly(monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    """What is put behind a product loses, in one place of the model, its sense."""
    right = fuse._finished

    def wrong(producer: Node, reader: Node, *places: Any) -> Node:
        made = right(producer, reader, *places)
        return too_much(made) if reader.origin[-1].endswith(last) else made

    monkeypatch.setattr(fuse, "_finished", wrong)


FUSED = ["/layer2.0/conv2", "/layer2.0/bn2", "/layer2.0/add", "/layer2.0/relu_1"]

# A model, the operator that is wrong, where, and the node to be found.
WRONG: dict[str, tuple[str, str, Where, str]] = {
    "products with a stride": ("resnet_small", "Conv", strided, "/layer3.0/downsample/conv"),
    "one softmax": (
        "encoder_small",
        "Softmax",
        named("/layers.1/attention/softmax"),
        "/layers.1/attention/softmax",
    ),
    "an erf, twice": ("encoder_small", "Erf", named("/gelu/erf"), "/layers.0/gelu/erf"),
}


def found_nodes(text: str) -> list[str]:
    """The names in the list of nodes that bisection prints."""
    listed = text.partition("on the inputs that the reference has there:\n")[2]
    return re.findall(r"^  (?!output )\w+ (\S+)$", listed, re.M)


def run_again(text: str) -> int:
    """Do what the last two lines say; the exit code of the second."""
    first, second = text.rstrip().splitlines()[-2:]
    assert run_line(first.replace("compile", "ramforge compile"))[0] == 0
    return run_line(second)[0]


def run_line(line: str) -> tuple[int, str, str]:
    script, *arguments = shlex.split(line)
    assert script == "ramforge"
    return command(*arguments)


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_kernel_is_found(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, op, where, expected = WRONG[case]
    distort(monkeypatch, op, where)
    source, model = compiled(name, tmp_path)
    code, out, said = command("verify", source, model, "--bisect", "--device", "host:2")
    assert code == EXIT_CHECK, said
    assert found_nodes(out) == [expected]
    alone = onnx.load(tmp_path / f"{name}.bisect/model.onnx")
    assert [node.name for node in alone.graph.node] == [expected]
    assert arrays.load(tmp_path / f"{name}.bisect/inputs.npz").keys() == {
        value.name for value in alone.graph.input
    }
    if case == "one softmax":
        monkeypatch.undo()
        assert run_again(out) == 0


def test_a_wrong_fusion_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuse_wrongly(monkeypatch, "/layer2.0/relu_1")
    source, model = compiled("resnet_small", tmp_path)
    code, out, said = command("verify", source, model, "--bisect", "--device", "host:2")
    assert code == EXIT_CHECK, said
    assert found_nodes(out) == FUSED
    assert run_again(out) == EXIT_CHECK


def test_what_no_group_of_fused_nodes_shows_is_found_by_halving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuse_wrongly(monkeypatch, "relu2")
    source, model = compiled("chain", tmp_path)
    manifest = json.loads(source.with_suffix(".json").read_text())
    source.with_suffix(".json").write_text(json.dumps({**manifest, "roperators": []}))
    code, out, _ = command("verify", source, model, "--bisect", "--device", "host:2")
    assert code == EXIT_CHECK
    assert found_nodes(out) == ["conv2", "add", "relu2"]


def test_layers_come_in_order_and_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distort(monkeypatch, "Conv", strided)
    artifact = ramforge.load(compiled("resnet_small", tmp_path)[0])
    model = tmp_path / "resnet_small.onnx"
    how = recipe(artifact, "host:2", {}, None)
    given = arrays.made_up(artifact.inputs, seed=0)
    source = Source(model)
    wholes: list[int] = []
    run = Recipe.run

    def counted(self: Recipe, model: Any, inputs: Any, *, whole: bool) -> list[Any]:
        results = run(self, model, inputs, whole=whole)
        wholes.append(sum(result.nbytes for result in results))
        return results

    monkeypatch.setattr(Recipe, "run", counted)
    limit = 300_000
    whole = Whole(model, how)
    found = list(layers(source, whole, Reference(source, given), how, Tolerances(), limit))
    assert [layer.node for layer in found] == [node.name for node in onnx.load(model).graph.node]
    wrong = [layer.node for layer in found if not layer.difference.ok]
    assert wrong[0] == "/layer3.0/downsample/conv"
    assert wrong[-1] == found[-1].node
    assert 1 < len(wholes) < len(found) / 3
    assert max(wholes) <= limit


def test_the_table_marks_the_first_wrong_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distort(monkeypatch, "Relu", named("/relu.1"))
    source, model = compiled("mlp_fixed", tmp_path)
    code, out, said = command("verify", source, model, "--layers", "--device", "host:2")
    assert code == EXIT_CHECK, said
    assert len([line for line in out.splitlines() if line.endswith("WRONG, the first")]) == 1


def test_right_outputs_end_with_0_and_need_no_bisection(tmp_path: Path) -> None:
    source, model = compiled("mlp_fixed", tmp_path)
    for flags in ((), ("--bisect",), ("--ref", "onnx"), ("--atol", "1e-3", "--rtol", "0")):
        code, out, said = command("verify", source, model, "--device", "host:2", *flags)
        assert code == 0, said
        assert out.rstrip().endswith("ok")
    assert not source.with_suffix(".bisect").exists()
    ramforge.verify(str(source), model, device="host:2").raise_for_status()


def test_tolerances_are_of_all_outputs_or_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distort(monkeypatch, "Softmax", lambda node, graph: True)
    source, model = compiled("mlp_fixed", tmp_path)
    for flags, expected in (
        ((), EXIT_CHECK),
        (("--rtol", "0.02"), 0),
        (("--rtol", "probabilities:0.02"), 0),
        (("--rtol", "other:0.02"), EXIT_CHECK),
        (("--rtol", "probabilities:0.005", "--rtol", "1"), EXIT_CHECK),
        (("--atol", "100"), 0),
        (("--rtol", "much"), EXIT_USAGE),
    ):
        assert command("verify", source, model, "--device", "host:2", *flags)[0] == expected, flags
    with pytest.raises(VerificationError, match="probabilities"):
        ramforge.verify(str(source), model, device="host:2").raise_for_status()


def test_another_model_and_missing_values_are_usage_errors(tmp_path: Path) -> None:
    source, _ = compiled("mlp_fixed", tmp_path)
    _, other = compiled("lstm_cell", tmp_path)
    code, _, said = command("verify", source, other, "--device", "host:2")
    assert code != 0 and "fix:" in said
    manifest = json.loads(source.with_suffix(".json").read_text())
    manifest["options"]["values"] = {"k": "int64[1] 0123"}
    source.with_suffix(".json").write_text(json.dumps(manifest))
    code, _, said = command("verify", source, tmp_path / "mlp_fixed.onnx")
    assert code == EXIT_USAGE and "--bind" in said


def test_data_beside_the_model_stays_there(tmp_path: Path) -> None:
    model, source = tmp_path / "net.onnx", tmp_path / "net.cu"
    onnx_files.save(MODELS["resnet_small"](), model, most_bytes=1000)
    assert (tmp_path / "net.onnx.data").stat().st_size > 100_000
    ramforge.compile(model, target="host:2", output=source)
    code, out, said = command("verify", source, model, "--layers", "--device", "host:2")
    assert code == 0, said
    assert out.count(" ok") == len(onnx.load(model).graph.node) + 1


def test_loops_and_bound_values_are_cut_out_of_a_model(tmp_path: Path) -> None:
    """The border of a node is also what its subgraphs read, and a bound input is a constant."""
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 3] x, int64[1] axes) => (float[2, 3] y) {
            kept = Abs (x)
            wide = Unsqueeze (kept, axes)
            thin = Squeeze (wide, axes)
            count = Constant <value = int64 {3}> ()
            yes = Constant <value = bool {1}> ()
            y = Loop (count, yes, thin) <body = b (int64 i, bool c, float[2, 3] a)
                => (bool c_out, float[2, 3] a_out) {
                c_out = Identity (c)
                a_out = Add (a, kept)
            }>
        }
    """
    model = onnx.parser.parse_model(text)
    values = {"axes": np.array([1], np.int64)}
    source = tmp_path / "loop.cu"
    artifact = ramforge.compile(model, target="host:2", output=source, values=values)
    found = ramforge.verify(artifact, model, values=values, device="host:2")
    found.raise_for_status()
    how = recipe(artifact, "host:2", values, None)
    whole = Whole(model, how)
    loop = whole.part(whole.nodes[-1:])
    assert set(loop.inputs) == {"thin", "kept"} and set(loop.constants) == {"count", "yes"}
    theirs = Reference(Source(model), {**found.inputs, **values})
    search = Bisection(whole, theirs, how, Tolerances(), lambda text: None)
    assert search.find(artifact) is None and not search.refused


def test_a_quantised_model_may_be_a_step_off_unless_told_otherwise(tmp_path: Path) -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 64] x) => (float[1, 64] y)
        <float step = {0.05}, int8 zero = {3}> {
            whole = QuantizeLinear (x, step, zero)
            y = DequantizeLinear (whole, step, zero)
        }
    """
    model, source = tmp_path / "net.onnx", tmp_path / "net.cu"
    onnx.save(onnx.parser.parse_model(text), model)
    inputs = {"x": np.linspace(-3, 3, 64, dtype=np.float32)[None]}
    ramforge.compile(model, target="host:2", output=source)
    found = ramforge.verify(str(source), model, inputs=inputs, device="host:2")
    assert found.ok and found.differences[0].tolerance == pytest.approx(0.05005 / 3, rel=0.02)
    strict = Tolerances(relative={"y": 1e-6})
    allowed = strict.over(Tolerances({"y": 0.05, "z": 1.0}, {"y": 0.0, "z": 0.0}))
    assert allowed == Tolerances({"z": 1.0}, {"z": 0.0, "y": 1e-6})
    assert Tolerances({"": 0.1}).over(Tolerances({"z": 1.0})) == Tolerances({"": 0.1})
    code, out, said = command("verify", source, model, "--layers", "--device", "host:2")
    assert code == 0, said
    assert re.search(r"^whole +QuantizeLinear +1x64 ", out, re.M)
