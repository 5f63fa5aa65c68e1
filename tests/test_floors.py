"""Latency by the roofline is a sum that one can do by hand, and a row of the allocator like any other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.codegen.target.ceiling import Ceiling, Ceilings
from qcc.codegen.target.machine import machine as this
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.costs import Meter, by_clock
from qcc.compiler.work import floors
from qcc.compiler.work.floors import floor_meter
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.bytes import BYTES
from qcc.ir.forms.fused import FUSED
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.activations.static import Static
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest
from tests import onnx_models as models

OUT, IN = 256, 64
BODY = f"g (float[N,{IN}] x) => (float[N,{OUT}] y) {{ y = MatMul(x, w) }}"
POLICY = (
    "qpolicy 1\nrule linear {{ weights = int4 group 32 | int8 group 32 | float }}\nbudget {{ latency({}) <= {}% }}\n"
)
RATES = {"fp32 multiply-add": 100.0, "int8 VNNI": 400.0, "reading memory": 1.0, "rounding to int8": 50.0}
SAME = 1e-9  # of a sum of a few floats
GIGA = 1e9


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of which all is known, without caches."""
    known = Ceilings("2026-11-29", tuple(Ceiling(name, rate, "GB/s", rate) for name, rate in RATES.items()))
    monkeypatch.setattr("qcc.codegen.cpu.ceilings.ceilings.known", lambda: known)
    here = replace(this(), l1_bytes=0, l2_bytes=0, l3_bytes=0)
    monkeypatch.setattr(floors, "machine", lambda: here)
    monkeypatch.setattr(floors, "launch_s", lambda _: 1e-9)


def _meter(folder: Path, said: str = "roofline", rows: int = 1) -> tuple[Meter, OnnxGraph]:
    graph = models.loaded(models.Case(BODY, {"w": models.random(IN, OUT)}, {}), folder)
    samples = Samples(({"x": models.random(rows, IN)},), "test")
    return floor_meter(load_text(POLICY.format(said, 60), schema()), graph, graph, samples, None), graph


def test_a_row_is_held_by_its_bytes_and_many_by_their_products(machine: None, tmp_path: Path) -> None:
    for rows, threads in ((1, 1), (4096, 1), (4096, 2)):
        said = "roofline" if threads == 1 else f"roofline, threads = {threads}"
        meter, _ = _meter(tmp_path, said, rows)
        moved = (4 * IN * OUT + 4 * rows * (IN + OUT)) / GIGA
        products = 2 * rows * IN * OUT / (RATES["fp32 multiply-add"] * GIGA)
        assert meter.whole == pytest.approx(1e3 * max(moved, products) / threads, rel=SAME)


def test_fewer_bytes_and_whole_numbers_take_less(machine: None, tmp_path: Path) -> None:
    meter, graph = _meter(tmp_path, rows=4096)
    (weight,) = graph.weights()
    fused = Encode(Blocked(IntGrid(4), group(32)), Nearest(), FUSED)
    stored = FUSED.stored_bytes(fused.encoding, weight.shape)
    values = 4 * 4096 * (IN + OUT)
    products = 2 * 4096 * IN * OUT / RATES["fp32 multiply-add"]
    assert meter.of(weight, fused) == pytest.approx(1e3 * max(stored + values, products) / GIGA, rel=SAME)
    whole = Encode(Blocked(IntGrid(8), CHANNEL), Nearest(), BYTES, Static())
    held = max(BYTES.stored_bytes(whole.encoding, weight.shape), weight.params)
    read = 4096 * (IN + 4 * OUT)
    assert meter.of(weight, whole) == pytest.approx(1e3 * (held + read) / GIGA, rel=SAME)


def test_a_policy_is_held_to_floors_and_no_clock(machine: None, tmp_path: Path) -> None:
    onnx.save(models.parse(BODY, {"w": models.random(IN, OUT)}, opset=21), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=models.random(4, IN))
    result = qcc.compile(
        tmp_path / "m.onnx", POLICY.format("roofline", 40), data=tmp_path / "d.npz", output=tmp_path / "o.onnx"
    )
    (told,) = (one for one in result.costs if one.row == "latency")
    assert told.after <= 0.4 * told.before and "roofline" in told.note
    assert [str(row.format)[:13] for row in result.layers] == [
        "int8 group 32"
    ]  # what loses least of what is fast enough
    assert (
        result.times is not None
        and result.times.predicted_s is None
        and not [one for one in result.warnings if one.code == "Q432"]
    )
    assert not by_clock(load_text(POLICY.format("roofline", 40), schema()))
    assert by_clock(load_text(POLICY.format("learned", 40), schema()))


def test_nothing_was_measured_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcc.codegen.cpu.ceilings.ceilings.known", lambda: None)
    with pytest.raises(QccError) as caught:
        _meter(tmp_path)
    assert caught.value.diagnostics[0].code == "Q455"
