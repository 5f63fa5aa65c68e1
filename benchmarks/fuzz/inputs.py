"""What else can be wrong: policies, locks, calibration data, and files that mean harm."""

import copy
import hashlib
import io
import json
import os
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

POLICIES = (
    'use "balanced"',
    'calibrate "data.npz" { samples = 64, seed = 1 }',
    "rule linear, conv { weights = int{2,3,4} group {16,32} | float; rounding = gptq(damping = 0.01) }",
    "rule any[name ~ /layer\\.(\\d+)\\.(q|k)$/, params > 100k] { keep }",
    "let wide = linear[out >= 64] or (conv and not conv[kernel == 3x3])",
    "param width = 32\nrule wide { weights = int4 group $width asym scale fp32 }",
    "budget { size <= 25%, bits <= 4.5, latency <= 80% }\nminimize output_error",
    "verify { cosine >= 0.99, sqnr >= 20 dB, relative_error <= 5% }",
    "target cpu(avx2, generic)\nexport { opset = 21, external_data = never, kernels = none }",
    "rule any { fold_norm = on; rotate = hadamard; permute = hessian; equalize = off; fold = smoothquant(0.5) }",
    'rule attention[name ~ "*"] { fuse = on }\nrule attention { fuse = off }',
    "rule embedding { weights = int8 tile 16x16 } # a comment\nrule any[position == first] { activations = static }",
)
TOKENS = re.compile(r"\"[^\"]*\"|/[^/\n]*/|[A-Za-z_][\w.-]*|[0-9][\w.%]*|\s+|.")
SPLINTERS = (
    *(
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "|",
        ",",
        ";",
        "\n",
        "=",
        "==",
        "<=",
        "~",
        "!",
        "$",
        "$x",
        '"',
        '"\\',
        "/",
        "/(/",
        "#",
    ),
    *("int", "int0", "int99", "int{", "1e400", "9" * 400, "-1", "0", "3x3", "99999999999x1", "%", "dB", "MiB", "not"),
    *("and", "or", "rule", "let", "use", "qpolicy 2", "é", "\u202e", "\0", "\ufeff", "\r", "\t", "²", "/(a+)+$/"),
    *("/a{1,1000}a{1,1000}/", "not " * 80, "(" * 80, "x" * 5000, "..", "//", "/*", "'a'", '"' + "*a" * 300 + '"'),
)


ODD_VALUES: tuple[object, ...] = (
    *(None, True, -1, 0, 2**70, 1.5, float("nan"), "", "x", "int4", [], {}, [[]], {"a": 1}, "a" * 5000),
)


def policy(rng: random.Random) -> bytes:
    """A policy of some good statements, mutated token by token, now and then byte by byte."""
    text = "qpolicy 1\n" + "\n".join(rng.sample(POLICIES, rng.randrange(1, 5))) + "\n"
    data = bytearray(_other_words(text, rng).encode("utf-8", "surrogatepass"))
    if rng.random() < 0.1:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _other_words(text: str, rng: random.Random) -> str:
    """A text in which tokens are gone, doubled, moved or others."""
    tokens = TOKENS.findall(text)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(tokens))
        kind = rng.randrange(5)
        if kind == 0:
            del tokens[at]
        elif kind == 1:
            tokens.insert(at, rng.choice((*SPLINTERS, rng.choice(tokens))))
        elif kind == 2:
            tokens[at] = rng.choice((*SPLINTERS, rng.choice(tokens)))
        elif kind == 3:
            tokens[at:at] = tokens[at : at + rng.randrange(1, 12)] * rng.choice((1, 2, 50))
        else:
            other = rng.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
        tokens = tokens or ["x"]
    return "".join(tokens)


def lock(text: str, rng: random.Random) -> bytes:
    """A lock file in which values are of other types, gone, doubled or others', or the plan has other words.

    Half of them have the right hash.
    """
    data = json.loads(text)
    if rng.random() < 0.5:
        data["plan"] = _other_words("\n".join(data["plan"]), rng).split("\n")
        data["plan_sha256"] = _plan_sha256(data)
        return json.dumps(data).encode()
    for _ in range(rng.choice((1, 1, 2, 4))):
        places: list[tuple[object, object]] = []
        _places(data, places)
        parent, key = rng.choice(places)
        value = copy.deepcopy(rng.choice((*ODD_VALUES, _get(*rng.choice(places)))))
        if isinstance(parent, dict) and rng.random() < 0.3:
            del parent[key]
        elif isinstance(parent, list) and rng.random() < 0.3:
            parent.insert(int(str(key)), value)
        else:
            parent[key] = value  # type: ignore[index]
    if rng.random() < 0.5:
        data["plan_sha256"] = _plan_sha256(data)
    raw = json.dumps(data).encode()
    if rng.random() < 0.1:
        raw = raw[: rng.randrange(len(raw))]
    return raw


def _plan_sha256(data: dict[str, object]) -> str:
    lines = data.get("plan")
    text = "\n".join(map(str, lines if isinstance(lines, list) else [lines]))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _get(parent: object, key: object) -> object:
    return parent[key]  # type: ignore[index]


def _places(value: object, found: list[tuple[object, object]]) -> None:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        found.append((value, key))
        _places(one, found)


def data(rng: random.Random) -> bytes:
    """Calibration data of the wrong names, types, shapes or numbers, or damaged."""
    rows = rng.choice((0, 1, 3, 8))
    array = np.random.default_rng(rng.randrange(2**32)).standard_normal((rows, 1, 28, 28)).astype(np.float32)
    odd: tuple[Callable[[], object], ...] = (
        lambda: array,
        lambda: array.astype(rng.choice(("float64", "int8", "complex64", "U3", "datetime64[s]", "float16", "bool"))),
        lambda: array.reshape(rows, 28 * 28),
        lambda: array[:, :, :27],
        lambda: array.ravel()[0] if rows else array,
        lambda: np.where(array > 1, rng.choice((np.nan, np.inf, 1e38)), array),
        lambda: np.array([{"a": 1}], object),
        lambda: np.zeros((rows, 0, 28, 28), np.float32),
        lambda: np.zeros((rows,), np.dtype([("a", "f4")])),
        lambda: np.asfortranarray(array),
    )
    file = io.BytesIO()
    names = rng.choice((["image"], ["image"], ["imag"], ["image", "other"], [], ["../image"], ["image", "image.npy"]))
    np.savez(file, **{name: rng.choice(odd)() for name in names})  # type: ignore[arg-type]
    raw = bytearray(file.getvalue())
    kind = rng.randrange(6)
    if kind == 0:
        del raw[rng.randrange(len(raw)) :]
    elif kind == 1:
        for _ in range(rng.randrange(1, 9)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    elif kind == 2 and names:
        raw = bytearray(_header(rng))
    return bytes(raw)


def _header(rng: random.Random) -> bytes:
    """An archive whose array says that it is larger than it is, or of an odd type."""
    shape = rng.choice(("(1099511627776, 1, 28, 28)", "(-1,)", "(3, 1, 28, 28)", "3", "()", "(2.5,)", "None"))
    kind = rng.choice(("'<f4'", "'|O'", "'<f4,<f8'", "'x'", "[('a', '<f4')]"))
    text = (
        f"{{'descr': {kind}, 'fortran_order': {rng.choice(('False', 'True', '3'))}, 'shape': {shape}, }}".ljust(117)
        + "\n"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            "image.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(4000)
        )
    return file.getvalue()


def hostile(at: int, folder: Path, model: bytes) -> list[str]:
    """Arrange one of the files that mean harm; what to run then."""
    kinds = _HOSTILE
    return kinds[at % len(kinds)](folder, model, at // len(kinds))


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _fifo(folder: Path, _: bytes, turn: int) -> list[str]:
    os.mkfifo(folder / "pipe")
    # A policy may come through a pipe, and is waited for.
    return [["compile", "pipe"], ["inspect", "pipe"], ["compile", "m.onnx", "--data", "pipe"]][turn % 3]


def _loop(folder: Path, _: bytes, turn: int) -> list[str]:
    (folder / "loop").symlink_to("loop")
    return [["compile", "loop"], ["check", "loop"], ["compile", "m.onnx", "--data", "loop"]][turn % 3]


def _special(folder: Path, model: bytes, turn: int) -> list[str]:
    _write(folder / "m.onnx", model)
    places = ("/dev/null", "/dev/full", "/dev/zero", "/proc/self/mem", ".", "m.onnx/x", "m.onnx")
    return ["compile", "m.onnx", "-o", places[turn % len(places)]]


def _special_input(_: Path, __: bytes, turn: int) -> list[str]:
    places = ("/dev/null", "/dev/zero", "/proc/self/mem", "/proc/self/maps", "/", "/sys/kernel")
    return [("compile", "inspect", "check", "bench")[turn % 4], places[turn % len(places)]]


def _text(folder: Path, _: bytes, turn: int) -> list[str]:
    contents = (
        b"",
        b"\0" * 10_000,
        b"qpolicy 1\n",
        b"{" * 100_000,
        b"PK\x03\x04",
        b"\x08" * 5000,
        b"\n" * 100_000,
        b"\xff\xfe",
    )
    _write(folder / "m.onnx", contents[turn % len(contents)])
    return ["compile", "m.onnx"]


def _large_policy(folder: Path, _: bytes, turn: int) -> list[str]:
    texts = (
        "rule any { keep }\n" * 100_000,
        "(" * 100_000,
        "rule " + "not " * 50_000 + "any { keep }",
        "rule any { weights = int{" + ",".join(["4"] * 100_000) + "} }",
        "let a = any\n" * 20_000,
        "rule any { weights = " + " | ".join(["int4"] * 50_000) + " }",
        "budget { size <= " + "9" * 1_000_000 + "% }",
        'rule any[name ~ "' + "*a" * 100_000 + '"] { keep }',
        'use "x.qpolicy"\nrule any { keep }',
        "rule any { weights = int{2,3,4,5,6,7,8} group {2,4,8,16,32,64,128,256,512} scale {fp16,fp32} }\n" * 2000,
    )
    _write(folder / "x.qpolicy", ("qpolicy 1\n" + texts[turn % len(texts)]).encode())
    return ["check", "x.qpolicy"]


def _bomb(folder: Path, model: bytes, turn: int) -> list[str]:
    _write(folder / "m.onnx", model)
    with zipfile.ZipFile(folder / "data.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 1, 28, 28), }" % (250_000 * (1 + turn % 3))
        head = head.ljust(117) + b"\n"
        with archive.open("image.npy", "w", force_zip64=True) as file:
            file.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
            for _ in range(98 * (1 + turn % 3)):
                file.write(bytes(8_000_000))
    return ["compile", "m.onnx", "--data", "data.npz", "-o", "out.onnx"]


def _unwritable(folder: Path, model: bytes, turn: int) -> list[str]:
    _write(folder / "m.onnx", model)
    name = ("out.onnx", "m.qcc.lock", "m.qcc.html", "m.qcc.onnx")[turn % 4]
    (folder / name).mkdir()
    return ["compile", "m.onnx", *(["-o", "out.onnx"] if name == "out.onnx" else [])]


_HOSTILE = (_fifo, _loop, _special, _special_input, _text, _large_policy, _large_policy, _bomb, _unwritable, _text)
