"""Costs from measurements: the arithmetic by hand, the file, and what they change in a program."""

from __future__ import annotations

import ast
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from program_support import optimised

import ramforge
from ramforge.compiler.cost import SyncCost, Work, tuning_file
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.cost.tuned import Measured, TunedCost, Tuning
from ramforge.compiler.device import Target, VDevice, find_target
from ramforge.compiler.errors import ArtifactError, OptionError, RamforgeError
from ramforge.compiler.lower import lower
from ramforge.compiler.rprogram import Body, TaskCost
from ramforge.runtime import tune
from ramforge.zoo import MODELS

ROOT = Path(__file__).resolve().parent.parent.parent
H200 = find_target("h200")
HOST = find_target("host:2")


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A work with this body."""

    body: Body
    flops: float
    tasks: int = 8

    @property
    def cost(self) -> TaskCost:
        return TaskCost(self.flops, 1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Sealed:
    """A work whose body nobody may ask for."""

    tasks: int = 8

    @property
    def cost(self) -> TaskCost:
        return TaskCost(5.0, 1.0, 1.0)

    @property
    def body(self) -> Body:
        raise AssertionError("the body was written for nothing")


class Simple:
    """A prior that is easy by hand: longer with every busy vEU, every block and every thread."""

    def task_ns(self, work: Work, device: VDevice, active: int) -> float:
        return work.cost.flops * active * device.blocks_per_sm * device.threads / 128

    def key(self, work: Work) -> TaskCost:
        return work.cost

    def sync(self, target: Target) -> SyncCost:
        return SyncCost(1.0, 2.0, 3.0, 4.0)


def body(number: int, family: str = "map") -> Body:
    return Body(family, "", f"// {number}", 0, 0)


def measured(of: Body, task_ns: float, flops: float = 10.0, units: int = 4, blocks: int = 2,
             threads: int = 128) -> Measured:  # fmt: skip
    cost = TaskCost(flops, 1.0, 1.0)
    return Measured(of.name, of.family, "", task_ns, units, threads, blocks, cost)


def tuned(*rows: Measured, **sync: float) -> TunedCost:
    return TunedCost(Simple(), Tuning("h200", H200.sms, "", rows, sync), H200)


def on(blocks: int, threads: int = 128) -> VDevice:
    return VDevice(replace(H200, threads=threads), threads, blocks, 0)


# Prediction.


def test_under_the_conditions_of_the_measurement_the_time_is_the_measured_one() -> None:
    cost = tuned(measured(body(1), 700.0, units=4, blocks=2))
    assert cost.task_ns(Job(body(1), 10.0), on(2), 4) == pytest.approx(700.0)


def test_under_other_conditions_the_prior_says_how_it_changes() -> None:
    # the prior said 10 * 4 * 2 = 80, so all that it says is 700 / 80 of the truth
    cost = tuned(measured(body(1), 700.0, units=4, blocks=2))
    assert cost.task_ns(Job(body(1), 10.0), on(2), 12) == pytest.approx(2100.0)
    assert cost.task_ns(Job(body(1), 10.0), on(1), 4) == pytest.approx(350.0)


def test_a_body_that_was_not_measured_gets_the_median_of_its_family() -> None:
    rows = [measured(body(n), 80.0 * ratio) for n, ratio in enumerate((2.0, 3.0, 50.0))]
    cost = tuned(*rows, measured(body(9, "row"), 8000.0))
    assert cost.task_ns(Job(body(4), 7.0), on(1), 1) == pytest.approx(21.0)
    assert cost.task_ns(Job(body(4, "row"), 7.0), on(1), 1) == pytest.approx(700.0)


def test_a_family_of_which_nothing_was_measured_keeps_the_prior() -> None:
    cost = tuned(measured(body(1), 700.0))
    assert cost.task_ns(Job(body(1, "reduce"), 7.0), on(1), 3) == 21.0


def test_a_body_is_measured_for_each_size_of_a_block() -> None:
    small, large = measured(body(1), 160.0), measured(body(1), 800.0, threads=256)
    cost, other = tuned(small, large), tuned(small, measured(body(2), 80.0 * 9))
    job = Job(body(1), 10.0)
    assert cost.task_ns(job, on(2, 128), 4) == pytest.approx(160.0)
    assert cost.task_ns(job, on(2, 256), 4) == pytest.approx(800.0)
    # not measured with so many threads: the median of 2 and 9, of the 160 of the prior
    assert other.task_ns(job, on(2, 256), 4) == pytest.approx(5.5 * 160)


def test_two_works_of_a_body_are_both_as_it_was_measured() -> None:
    cost = tuned(measured(body(1), 700.0))
    for flops in (10.0, 20.0):
        assert cost.task_ns(Job(body(1), flops), on(2), 4) == pytest.approx(700.0)


def test_costs_of_synchronisation_are_the_prior_s_but_for_those_in_the_file() -> None:
    assert tuned().sync(H200) == SyncCost(1.0, 2.0, 3.0, 4.0)
    assert tuned(barrier_ns=9.5).sync(H200) == SyncCost(1.0, 9.5, 3.0, 4.0)


# Keys.


def test_an_empty_table_is_the_prior_and_asks_for_no_body() -> None:
    cost = tuned()
    assert cost.key(Sealed()) == Simple().key(Sealed())
    assert cost.task_ns(Sealed(), on(1), 3) == 15.0


def test_keys_tell_measured_bodies_from_each_other_and_from_the_rest() -> None:
    cost = tuned(measured(body(1), 700.0), measured(body(2), 70.0))
    one, two, three, four = (Job(body(n), 10.0) for n in (1, 2, 3, 4))
    assert len({cost.key(job) for job in (one, two, three)}) == 3
    assert cost.key(three) == cost.key(four)
    assert cost.key(three) != cost.key(Job(body(3, "row"), 10.0))
    assert cost.key(one) == cost.key(Job(body(1), 10.0))
    assert cost.key(one) != cost.key(Job(body(1), 11.0))


def test_works_with_the_same_key_cost_the_same() -> None:
    generator = random.Random(3)
    rows = [measured(body(n), generator.uniform(1, 99), threads=t) for n in (0, 1) for t in (128,)]
    cost = tuned(*rows, measured(body(0), 55.0, threads=256), measured(body(7, "row"), 5.0))
    jobs = [
        Job(body(n, family), flops)
        for n in range(4)
        for family in ("map", "row")
        for flops in (5.0, 10.0)
        for _ in range(2)
    ]
    seen: dict[Any, float] = {}
    for job in jobs:
        for threads in (128, 256):
            time = cost.task_ns(job, on(2, threads), 3)
            assert seen.setdefault((cost.key(job), threads), time) == pytest.approx(time)
    assert len(set(seen.values())) > 4


# The file.


def example() -> Tuning:
    rows = (measured(body(2), 1.0 / 3, 0.0), measured(body(1), 7e5, units=132, threads=256))
    return Tuning(H200.label, H200.sms, "a machine", rows, {"launch_ns": 0.0})


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    path.write_text(tuning_file.text(example()))
    found = tuning_file.read(path, H200)
    assert set(found.bodies) == set(example().bodies)
    assert replace(found, bodies=()) == replace(example(), bodies=())


def test_the_order_of_the_measurements_changes_neither_text_nor_digest() -> None:
    other = replace(example(), bodies=example().bodies[::-1])
    assert tuning_file.text(other) == tuning_file.text(example())
    expected = hashlib.sha256(tuning_file.text(example()).encode()).hexdigest()
    assert tuning_file.digest(other) == expected
    assert tuning_file.digest(replace(other, bodies=other.bodies[:1])) != expected


Edit = Callable[[dict[str, Any]], Any]


def row_with(**values: Any) -> Edit:
    return lambda document: document["bodies"][1].update(values)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda d: d.update(format=2), "not a tuning file of format 1, but 2"),
        (lambda d: d.pop("format"), "but None"),
        (lambda d: d.update(format=True), "but True"),
        (lambda d: d.pop("machine"), "machine is missing"),
        (lambda d: d.update(bodies={}), "bodies has to be a list"),
        (lambda d: d.update(extra=1), "extra is not known"),
        (lambda d: d["target"].update(sms=0), "target.sms has to be a whole number above 0"),
        (lambda d: d["sync"].update(launch_ns=-1), "sync.launch_ns has to be a number of 0"),
        (lambda d: d["sync"].update(lunch_ns=1), "sync.lunch_ns is not known"),
        (lambda d: d["bodies"].append(7), r"bodies\[2\] has to be a table"),
        (lambda d: d["bodies"].append(d["bodies"][0]), r"bodies\[2\] is of map_\w+ with 256 thr"),
        (row_with(task_ns=0), r"bodies\[1\].task_ns has to be a number above 0"),
        (row_with(task_ns="fast"), r"bodies\[1\].task_ns has to be a number above 0"),
        (row_with(task_ns=float("nan")), r"bodies\[1\].task_ns has to be a number above 0"),
        (row_with(task_ns=float("inf")), r"bodies\[1\].task_ns has to be a number above 0"),
        (row_with(task_ns=10**400), r"bodies\[1\].task_ns has to be a number above 0"),
        (row_with(units=True), r"bodies\[1\].units has to be a whole number above 0"),
        (row_with(units=1.5), r"bodies\[1\].units has to be a whole number above 0"),
        (row_with(family=None), r"bodies\[1\].family has to be a text"),
        (row_with(cost={}), r"bodies\[1\].cost.flops is missing"),
        (row_with(cost=[]), r"bodies\[1\].cost has to be a table"),
    ],
)
def test_a_wrong_file_is_refused_and_the_place_named(
    edit: Edit, complaint: str, tmp_path: Path
) -> None:
    document = json.loads(tuning_file.text(example()))
    edit(document)
    path = tmp_path / "tuning.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=rf"(?s)tuning\.json.*{complaint}.*\n    fix: "):
        tuning_file.read(path, H200)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    document = json.loads(tuning_file.text(example()))
    for row in document["bodies"]:
        row.update(units=0, threads=0, task_ns=0)
    path = tmp_path / "tuning.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError) as caught:
        tuning_file.read(path, H200)
    assert str(caught.value).count("has to be") == 5 and "and 1 more" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe", b'"text"', b"[" * 100_000, None]
)
def test_a_file_that_is_no_json_table_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match="\n    fix: "):
        tuning_file.read(path, H200)


@pytest.mark.parametrize("other", [find_target("h100"), replace(H200, sms=2), HOST])
def test_measurements_of_another_target_are_refused(other: Target, tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    path.write_text(tuning_file.text(example()))
    with pytest.raises(OptionError, match=r"measured for h200 with 132 SMs.*\n    fix: "):
        tuning_file.read(path, other)


# Programs.


def compiled(folder: Path, name: str, tuning: Tuning | None) -> tuple[str, dict[str, Any]]:
    (folder / name).mkdir()
    path = folder / name / "tuning.json"
    if tuning is not None:
        path.write_text(tuning_file.text(tuning))
    output = folder / name / "out.cu"
    artifact = ramforge.compile(
        MODELS["mlp"](),
        target=HOST,
        output=output,
        dims={"batch": 64},
        tuning=path if tuning is not None else None,
    )
    return artifact.text(), json.loads(output.with_suffix(".json").read_text())


def tiles_in(text: str) -> set[str]:
    return {line.split("tiles of ")[1] for line in text.splitlines() if ", tiles of " in line}


def test_a_table_in_which_another_variant_wins_changes_the_program(tmp_path: Path) -> None:
    from ramforge.compiler.frontend import import_model
    from ramforge.compiler.pipeline import optimise

    graph = optimise(import_model(MODELS["mlp"](), dims={"batch": 64}))
    offered = lower(graph, HOST).candidates
    found = {}
    for tile in ("16 x 32", "32 x 32"):
        rows = {
            each.body.name: measured(each.body, 1e-3 if tile in each.body.summary else 1e6,
                                     each.cost.flops, 1, 1, HOST.threads)
            for candidates in offered
            for each in candidates
        }  # fmt: skip
        tuning = Tuning(HOST.label, HOST.sms, "", tuple(rows.values()))
        text, manifest = compiled(tmp_path, tile, tuning)
        assert tiles_in(text) == {tile}
        assert manifest["options"]["tuning"] == tuning_file.digest(tuning)
        assert compiled(tmp_path, f"{tile} again", tuning) == (text, manifest)
        found[tile] = text
    assert found["16 x 32"] != found["32 x 32"]


def test_an_empty_table_changes_nothing_but_the_options(tmp_path: Path) -> None:
    text, manifest = compiled(tmp_path, "with", Tuning(HOST.label, HOST.sms))
    plain, other = compiled(tmp_path, "without", None)
    assert text == plain
    assert manifest["options"].pop("tuning") and manifest == other


def test_policies_know_neither_the_prior_nor_the_measurements() -> None:
    """They ask a CostModel; which one it is, is decided above them."""
    files = sorted((ROOT / "compiler" / "schedule").glob("*.py"))
    files.append(ROOT / "compiler" / "splitting.py")
    assert len(files) > 8
    for path in files:
        names = {
            node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module
        }
        costs = {name for name in names if name.startswith("ramforge.compiler.cost")}
        assert costs <= {"ramforge.compiler.cost"}, path.name


# What is measured.


def test_every_candidate_that_fits_is_in_some_option_and_for_each_size_of_a_block() -> None:
    graph = optimised("encoder_small")
    for target, sizes in ((HOST, [256]), (H200, [256, 128])):
        found = {place for option in tune.options_of(graph, target) for place in option.places}
        for threads in sizes:
            offered = lower(graph, replace(target, threads=threads)).candidates
            names = {each.body.name for candidates in offered for each in candidates}
            assert names == {name for name, size in found if size == threads}
        assert {size for _, size in found} == set(sizes)


def test_a_task_takes_the_part_of_its_launch_that_a_veu_spends_on_it() -> None:
    option = tune.options_of(optimised("resnet_small"), replace(H200, sms=3))[0]
    program = option.program()
    launches = program.plan.launches
    times = [1e6 * (number + 1) for number in range(len(launches))]
    rows = {row.place: row for row in tune.told(program, tune.np.array(times))}
    assert set(rows) == option.places == tune.places_in(program)
    alone = 0
    for number, operator in enumerate(program.operators):
        name = operator.variant.body.name
        users = [op for op in program.operators if op.variant.body.name == name]
        row = rows[name, 256]
        units = 3 * launches[number].shape.blocks_per_sm
        assert row.units == min(operator.tasks, units)
        assert row.cost == operator.variant.cost
        if len(users) == 1:
            alone += 1
            turns = -(-operator.tasks // units)
            assert row.task_ns == pytest.approx(times[number] / turns)
    assert alone > 1
    assert any(operator.tasks > 12 for operator in program.operators)


def test_a_launch_no_longer_than_an_empty_one_is_short_but_takes_time() -> None:
    program = tune.options_of(optimised("mlp"), HOST)[0].program()
    nothing = tune.np.full(len(program.plan.launches), -50.0)
    for row in tune.told(program, nothing):
        prior = AnalyticCost().task_ns(row, VDevice(HOST, HOST.threads, 1, 0), row.units)
        assert row.task_ns == pytest.approx(prior / 10)


def test_without_the_device_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune.cuda, "is_available", lambda: False)
    monkeypatch.setattr(tune.cuda, "obstacle", lambda: "no device is visible")
    many = replace(HOST, sms=tune.host.cores() + 1)
    for target in (H200, many):
        with pytest.raises(RamforgeError, match="\n    fix: ") as caught:
            tune.tune(MODELS["mlp"](), target, tmp_path / "tuning.json", dims={"batch": 2})
        assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sms", "capability", "is_right"),
    [(132, "9.0", True), (114, "9.0", False), (132, "8.0", False), (132, "10.0", False)],
)
def test_a_cuda_target_is_measured_only_on_such_a_device(
    sms: int, capability: str, is_right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = {"name": "Stand-in", "sms": sms, "capability": capability}
    monkeypatch.setattr(tune.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tune.cuda, "machine", lambda: machine)
    if is_right:
        assert tune.machine_of(H200) == "Stand-in"
        return
    with pytest.raises(RamforgeError, match="choose the --target of this device"):
        tune.machine_of(H200)
