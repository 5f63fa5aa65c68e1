"""Ctrl-C is held back, and not lost; whenever it comes, nothing is left."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qcc.codegen.target.interruption import held_back


@pytest.mark.parametrize("fails", [False, True])
def test_an_interruption_comes_at_the_end(fails: bool, request: pytest.FixtureRequest) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    done, handler = [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        done.append(True)
        if fails:
            raise ValueError
    assert done and signal.getsignal(signal.SIGINT) is handler


def test_nothing_comes_of_nothing() -> None:
    with held_back():
        pass


def test_other_threads_are_left_alone() -> None:
    done = []

    def run() -> None:
        with held_back():
            done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done


MAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background inherits that it is ignored
from qcc.__main__ import main
print(flush=True)
sys.exit(main(["compile", "net.onnx", "-q"]))
"""
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.slow
@pytest.mark.parametrize("sent", STATUS)
def test_whenever_it_comes_nothing_is_left(tmp_path: Path, sent: signal.Signals) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 512] x) => (float[n, 512] y) { y = MatMul (x, w) }'
    )
    weight = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    draw, (work, temporary) = random.Random(sent), (tmp_path / "work", tmp_path / "tmp")
    work.mkdir()
    temporary.mkdir()
    onnx.save(model, work / "net.onnx")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN], cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(draw.uniform(0.1, 2))
        process.send_signal(sent)
        process.communicate(timeout=60)
        names = {path.name for path in work.iterdir()}
        whole = {"net.onnx", "net.qcc.onnx", "net.qcc.lock", "net.qcc.html"}
        late = names == whole and process.returncode == -sent  # all was done, and the interpreter on its way out
        assert late or process.returncode in (0, STATUS[sent])
        assert names in ({"net.onnx"}, whole)
        assert list(temporary.iterdir()) == []
        for name in whole - {"net.onnx"}:
            (work / name).unlink(missing_ok=True)
