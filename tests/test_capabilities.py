"""The committed measurements: one table for each instruction set, and the rule by which they decide."""

import json
from pathlib import Path

import onnx
import pytest

from benchmarks import capabilities as benchmark
from qcc.codegen.cpu.processors.processors import (
    AMX,
    AVX2,
    DOTPROD,
    INSTRUCTION_SETS,
    PROCESSORS,
    VNNI,
    instruction_set,
)
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.choose_form import FormChooser
from qcc.compiler.plan.plan import Kernels
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.choose import choose
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.fused import FUSED, LEVEL
from qcc.ir.forms.fusible import fusible
from qcc.ir.forms.kernel import KERNEL
from qcc.ir.graph.costs import CapabilityTable, Cost, Costs, Way
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Weight
from tests.chooser import CPU, PLAIN
from tests.onnx_models import MATMUL, parse, random

INT4 = Blocked(IntGrid(4), group(32))
FUSED_WAY, EIGHT = Way("fused", "int4 sym", 32, LEVEL), Way("kernel", "int4 sym", 32, "bf16")


FAST, SLOW = {1: 0.25, 16: 1.0}, {1: 1.0, 16: 4.0}
TABLES: dict[str, CapabilityTable] = {
    "avx2": {FUSED_WAY: FAST, EIGHT: SLOW},
    "amx": {FUSED_WAY: SLOW, EIGHT: FAST},
}
"""Two instruction sets that disagree."""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the capability data of both targets."""
    monkeypatch.setattr(type(PLAIN), "capabilities", TABLES)


@pytest.fixture
def weight(tmp_path: Path) -> Weight:
    onnx.save(parse(MATMUL, {"w": random(64, 32)}, opset=21, ir_version=10), tmp_path / "one.onnx")
    (found,) = open_model(tmp_path / "one.onnx").graph.weights()
    return found


def test_every_set_has_every_kernel_of_the_runtime() -> None:
    assert CPU.capabilities == PLAIN.capabilities
    assert set(CPU.capabilities) <= set(INSTRUCTION_SETS)
    for ways in CPU.capabilities.values():
        for row in fusible():
            for size in row.groups:
                assert set(ways[Way("fused", row.codes, size, LEVEL)]) == {1, 16, 128}


def test_what_a_processor_has_names_its_set() -> None:
    assert [instruction_set(flags) for flags in (AMX, VNNI, AVX2, DOTPROD, ())] == [
        *("amx", "avx512-vnni", "avx2", "dotprod", "")
    ]
    assert {one.name: one.instructions for one in PROCESSORS.values()} == {
        "generic": "",
        "avx2": "avx2",
        "avx512-vnni": "avx512-vnni",
        "sapphire-rapids": "amx",
        "armv8.2-dotprod": "dotprod",
    }


def test_a_named_set_decides_by_its_own_table(weight: Weight) -> None:
    avx2 = choose(weight, INT4, Costs(TABLES, ("avx2",)))
    assert avx2.form == FUSED and avx2.reason.endswith("0.50x the time of float on avx2")
    assert choose(weight, INT4, Costs(TABLES, ("amx",))).form == DECODED


@pytest.mark.parametrize("names", [(), ("avx2", "amx"), ("dotprod",), ("avx2", "dotprod")])
def test_elsewhere_the_worst_of_all_tables_decides(names: tuple[str, ...], weight: Weight) -> None:
    choice = choose(weight, INT4, Costs(TABLES, names))
    assert choice.form == DECODED and choice.reason.endswith("2.00x the time of float on amx")


def test_what_was_not_measured_on_a_target_is_not_taken(weight: Weight) -> None:
    for tables in ({}, {"avx2": {EIGHT: FAST}}, {"avx2": {FUSED_WAY: FAST}, "amx": {}}):
        choice = choose(weight, INT4, Costs(tables))
        assert (choice.form, choice.reason) == (DECODED, "the runtime's kernel was not measured for this target")


def test_kernels_are_costed_where_they_were_measured() -> None:
    def cost(encoding: Blocked, shape: tuple[int, int], activations: str, names: tuple[str, ...]) -> Cost | None:
        return KERNEL.cost(encoding, shape, Costs(TABLES, names, activations))

    assert cost(INT4, (32, 64), "bf16", ("avx2", "amx")) == Cost(2.0, "avx2")
    assert cost(Blocked(IntGrid(4, False), group(64)), (32, 128), "bf16", ("amx",)) == Cost(0.5, "amx")
    assert cost(INT4, (32, 64), "bf16", ("dotprod",)) is None
    assert cost(INT4, (32, 64), "bf16", ("amx", "dotprod")) is None
    assert cost(INT4, (32, 64), "bf16", ()) is None
    assert cost(INT4, (32, 64), "exact", ("amx",)) is None
    assert cost(Blocked(IntGrid(4), CHANNEL), (32, 64), "bf16", ("amx",)) is None


@pytest.mark.parametrize(
    ("targets", "form"),
    [(("sapphire-rapids",), KERNEL), (("avx2",), FUSED), (("avx512-vnni",), KERNEL)],
)
def test_named_targets_time_nothing(targets: tuple[str, ...], form: Form, measured: None, weight: Weight) -> None:
    """The tables of the processors that are named decide, on whatever machine."""
    kernels = Kernels("cpu", targets, "bf16")
    assert FormChooser(CPU, kernels, {weight.name: 1}, None, at_hand=False)(weight, INT4).form is form


def test_a_set_is_written_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(benchmark.TABLE.read_bytes())
    before = json.loads(path.read_text(encoding="utf-8"))
    monkeypatch.setattr(benchmark, "TABLE", path)
    row = {"form": "fused", "codes": "int4 sym", "group": 32, "activations": LEVEL, "ratio": {"1": 0.5}}
    benchmark.write("avx512", [row])
    after = json.loads(path.read_text(encoding="utf-8"))
    assert after.pop("avx512")["rows"] == [row]
    assert after == before
