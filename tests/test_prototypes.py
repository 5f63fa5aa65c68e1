"""Samples that stand for all: nearer to all than drawn ones, chosen in order, told, and refused without a number."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.calibrate.choose.prototypes import _distances, _support, _transport, prototypes
from qcc.compiler.calibrate.samples import load
from qcc.compiler.files.open_model import open_model
from qcc.dsl.diagnostics.report import QccError
from tests.onnx_models import parse, random

BODY = "g (float[N, 16] x) => (float[N, 64] y) { y = MatMul (x, w) }"


def rows(count: int) -> np.ndarray:
    """Two kinds of samples, one of which is rare, and far."""
    rng = np.random.default_rng(1)
    found = rng.standard_normal((count, 16))
    found[: count // 8] += 4
    return np.asarray(rng.permutation(found), np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(parse(BODY, {"w": random(16, 64)}), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=rows(500))
    return tmp_path / "net.onnx"


def test_nearer_than_any_that_are_drawn() -> None:
    x = rows(400)
    distance = _distances(x)
    chosen = _support(distance, 32)
    assert len(set(chosen)) == 32
    draws = [np.random.default_rng(seed).choice(400, 32, replace=False).tolist() for seed in range(20)]

    def energy(some: list[int]) -> float:
        return float(2 * distance[:, some].mean() - distance[np.ix_(some, some)].mean())

    assert energy(chosen) < min(map(energy, draws))
    assert _transport(distance, chosen) < min(_transport(distance, one) for one in draws)
    assert abs(x[chosen].mean() - x.mean()) < np.median([abs(x[one].mean() - x.mean()) for one in draws])


def test_all_of_them_where_there_are_no_more(model: Path) -> None:
    graph = open_model(model).graph
    samples = load(model.with_name("data.npz"), graph, 20, 0)
    found = prototypes(samples, graph, 64)
    assert found.samples is samples and found.transport == 0


def test_a_policy_asks_for_them(model: Path) -> None:
    policy = model.with_name("p.qpolicy")
    line = 'calibrate "data.npz" { samples = 40, select = prototypes }'
    policy.write_text(f"qpolicy 1\n{line}\nrule any {{ weights = int8 channel }}\n", encoding="utf-8")
    first, second = (qcc.compile(model, policy, output=model.with_name(f"{at}.onnx")) for at in range(2))
    told = first.verification.origin
    assert "40 prototypes of 500: transport 0." in told
    transport, drawn = (float(told.split(mark)[1].split()[0]) for mark in ("transport ", "samples, "))
    assert transport < drawn
    assert first.output.read_bytes() == second.output.read_bytes()


def test_how_many_is_not_said_reject(model: Path) -> None:
    text = 'qpolicy 1\ncalibrate "data.npz" { select = prototypes }\nrule any { keep }\n'
    with pytest.raises(QccError) as caught:
        qcc.compile(model, text)
    assert [one.code for one in caught.value.diagnostics] == ["Q204"]
