"""Adapters in files: what each kind does to weights, by names, scales and shapes as training writes them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from scipy.linalg import lu
from torch import Tensor, nn

import qcc
from qcc.__main__ import main
from qcc.compiler.adapters.adapted import AdaptedModel
from qcc.compiler.adapters.merge import merge_adapters
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.adapters.read import AdapterSource
from qcc.ir.errors import ModelError
from qcc.ir.model.model import AnyModel
from qcc.ir.open_file import open_file
from tests.adapter_files import half, write_config, write_safetensors
from tests.torch_export import to_onnx

Tensors = Mapping[str, np.ndarray]
WIDTH, RANK = 32, 4
RANDOM = np.random.default_rng(5)
FEED = RANDOM.standard_normal((2, 6, 32)).astype(np.float32)


class Block(nn.Module):
    """A layer with a bias and one without, a norm between, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.norm, self.out = nn.Linear(32, 48), nn.LayerNorm(48), nn.Linear(48, WIDTH, bias=False)
        self.conv = nn.Conv1d(WIDTH, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv(torch.tanh(self.out(self.norm(self.query(x)))).transpose(1, 2))
        return torch.tanh(found)


class Net(nn.Module):
    """Blocks whose names have the depth of real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList([Block()])})

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.encoder["layer"][0](x)  # type: ignore[index]
        return found


AT = "encoder.layer.0"


@pytest.fixture(scope="module")
def net() -> Net:
    """The model that everything is trained beside."""
    torch.manual_seed(3)
    return Net().eval()


@pytest.fixture(scope="module")
def files(net: Net, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model in a file of each framework."""
    folder = tmp_path_factory.mktemp("models")
    found = {"onnx": folder / "net.onnx", "torch": folder / "net.pt2"}
    to_onnx(net, (torch.from_numpy(FEED),), found["onnx"], external_data=False)
    torch.export.save(torch.export.export(net, (torch.from_numpy(FEED),)), found["torch"])
    return found


def _random(*shape: int, dtype: str = "float32") -> np.ndarray:
    return (0.3 * RANDOM.standard_normal(shape)).astype(dtype)


def _layer(net: Net, name: str) -> np.ndarray:
    return dict(net.named_parameters())[f"{AT}.{name}"].detach().double().numpy()


Change = Callable[[Net], tuple[Tensors, Mapping[str, np.ndarray]]]
"""The tensors of a file, and the parameters that it makes, by their names in the block."""


def _lora(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    down, up = _random(RANK, 32), _random(48, RANK)
    at = f"base_model.model.{AT}.query"
    made = _layer(net, "query.weight") + 2 * up.astype(np.float64) @ down  # alpha 8 over rank 4
    return {f"{at}.lora_A.weight": down, f"{at}.lora_B.weight": up}, {"query.weight": made}


def _dora(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    tensors, made = _lora(net)
    size = np.abs(_random(48)) + 1
    weight = made["query.weight"]
    weight = weight * (size / np.linalg.norm(weight, axis=1))[:, None]
    return {**tensors, f"base_model.model.{AT}.query.lora_magnitude_vector": size}, {"query.weight": weight}


def _kohya(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    """Of a convolution, in half precision, with a scale in the file."""
    down, up, at = half(_random(RANK, WIDTH, 3)), half(_random(16, RANK, 1)), "lora_unet_encoder_layer_0_conv"
    delta = np.einsum("or,rik->oik", up[..., 0].astype(np.float64), down.astype(np.float64))
    tensors = {f"{at}.lora_down.weight": down, f"{at}.lora_up.weight": up, f"{at}.alpha": np.float32(2)}
    made = {"conv.weight": _layer(net, "conv.weight") + delta / 2}
    return {name: np.asarray(one) for name, one in tensors.items()}, made


def _core(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    """A convolution with its window in the middle."""
    down, core, up, at = _random(RANK, WIDTH, 1), _random(RANK, RANK, 3), _random(16, RANK, 1), f"{AT}.conv"
    delta = np.einsum("op,prk,ri->oik", *(one.astype(np.float64) for one in (up[..., 0], core, down[..., 0])))
    tensors = {f"{at}.lora_down.weight": down, f"{at}.lora_mid.weight": core, f"{at}.lora_up.weight": up}
    return tensors, {"conv.weight": _layer(net, "conv.weight") + 2 * delta}


def _lokr(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    first, left, right, at = _random(4, 4), _random(12, RANK), _random(RANK, 8), f"{AT}.query"
    made = _layer(net, "query.weight") + 2 * np.kron(first.astype(np.float64), left.astype(np.float64) @ right)
    return {f"{at}.lokr_w1": first, f"{at}.lokr_w2_a": left, f"{at}.lokr_w2_b": right}, {"query.weight": made}


def _loha(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    parts = [_random(*shape) for shape in ((48, RANK), (RANK, 32), (48, RANK), (RANK, 32))]
    one, two, three, four = (part.astype(np.float64) for part in parts)
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    tensors = {f"{AT}.query.{name}": part for name, part in zip(names, parts, strict=True)}
    return tensors, {"query.weight": _layer(net, "query.weight") + 2 * (one @ two) * (three @ four)}


def _ia3(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    made, read = _random(48, 1) + 1, _random(1, 48) + 1
    tensors = {f"base_model.model.{AT}.query.ia3_l": made, f"base_model.model.{AT}.out.ia3_l": read}
    weights = {"query.weight": _layer(net, "query.weight") * made, "query.bias": _layer(net, "query.bias") * made[:, 0]}
    return tensors, {**weights, "out.weight": _layer(net, "out.weight") * read}


def _vera(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    down, up, at = _random(RANK, 48), _random(64, RANK), f"base_model.model.{AT}"
    tensors, made = {"base_model.vera_A": down, "base_model.vera_B": up}, dict[str, np.ndarray]()
    for name, rows, inputs in (("query", 48, 32), ("out", 32, 48)):
        left, middle = _random(rows), _random(RANK)
        tensors |= {f"{at}.{name}.vera_lambda_b": left, f"{at}.{name}.vera_lambda_d": middle}
        delta = left[:, None].astype(np.float64) * (up[:rows] @ (middle[:, None] * down[:, :inputs]))
        made[f"{name}.weight"] = _layer(net, f"{name}.weight") + delta
    return tensors, made


def _scales(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    gain, shift, whole = _random(48) + 1, _random(48), np.float32(1.25)
    tensors = {f"{AT}.query.ssf_scale": gain, f"{AT}.query.ssf_shift": shift, f"{AT}.conv.gamma": np.asarray(whole)}
    bias = _layer(net, "query.bias") * gain + shift
    weights = {"query.weight": _layer(net, "query.weight") * gain[:, None], "query.bias": bias}
    conv = {f"conv.{part}": _layer(net, f"conv.{part}") * 1.25 for part in ("weight", "bias")}
    return tensors, {**weights, **conv}


def _bitfit(_net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    made = {"query.bias": _random(48), "norm.bias": _random(48), "conv.bias": _random(16)}
    return {f"{AT}.{name}": one for name, one in made.items()}, made


def _loldu(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    weight, diagonal, factor = _layer(net, "query.weight"), _random(RANK), np.float32(1.5)
    order, lower, upper = lu(weight)
    old = np.diag(upper)
    unit = upper / old[:, None]
    made = weight - 2 * order @ lower[:, :RANK] @ np.diag(old[:RANK]) @ unit[:RANK]
    made += 1.5 * order @ lower[:, :RANK] @ np.diag(diagonal) @ unit[:RANK]
    at = f"{AT}.query.parametrizations.weight.0"
    return {f"{at}.vector_z": diagonal, f"{at}.scaling_factor": np.asarray(factor)}, {"query.weight": made}


def _full(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    delta, bias, norm = _random(16, WIDTH, 3, dtype="float16"), _random(16), _random(48)
    tensors = {f"{AT}.conv.diff": delta, f"{AT}.conv.diff_b": bias, f"{AT}.norm.w_norm": norm}
    conv = {"conv.weight": _layer(net, "conv.weight") + delta, "conv.bias": _layer(net, "conv.bias") + bias}
    return tensors, {**conv, "norm.weight": _layer(net, "norm.weight") + norm}


def _sparse(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    places, values = RANDOM.choice(48 * 32, 40, replace=False), _random(40)
    made = _layer(net, "query.weight").copy()
    made.reshape(-1)[places] += values
    return {f"{AT}.query.indices": places, f"{AT}.query.values": values}, {"query.weight": made}


def _ia3_offset(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    """As kohya's scripts write it: around zero, biases left alone, a convolution by what it reads."""
    made, read = _random(48), _random(1, WIDTH, 1)
    query, conv = f"lora_unet_{AT.replace('.', '_')}_query", f"lora_unet_{AT.replace('.', '_')}_conv"
    tensors = {f"{query}.weight": made, f"{query}.on_input": np.asarray(0, np.int64)}
    tensors |= {f"{conv}.weight": read, f"{conv}.on_input": np.asarray(1, np.int64)}
    weights = {"query.weight": _layer(net, "query.weight") * (1 + made)[:, None]}
    return tensors, {**weights, "conv.weight": _layer(net, "conv.weight") * (1 + read)}


def _turn(skew: Tensor) -> Tensor:
    one = torch.eye(skew.shape[-1], dtype=skew.dtype)
    found: Tensor = (one + skew) @ torch.linalg.inv(one - skew)
    return found


def _oft(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    """Of kohya's scripts: a bound that holds for one layer and not for the other."""
    tensors, made = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for name, blocks, alpha in (("query", 6, 1e-3), ("conv", 4, 1.0)):
        weight = torch.from_numpy(_layer(net, f"{name}.weight"))
        held = _random(blocks, len(weight) // blocks, len(weight) // blocks)
        at = f"oft_unet_{AT.replace('.', '_')}_{name}"
        tensors |= {f"{at}.oft_blocks": held, f"{at}.alpha": np.asarray(alpha, np.float32)}
        skew = torch.from_numpy(held).double()
        skew = skew - skew.transpose(1, 2)
        skew = skew * min(1, float(np.float32(alpha)) * len(weight) / float(skew.norm()))
        whole = torch.einsum("knm,kn...->km...", _turn(skew), weight.reshape(blocks, -1, *weight.shape[1:]))
        made[f"{name}.weight"] = whole.flatten(0, 1).numpy()
    return tensors, made


def _boft(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    """Three stages of a butterfly, and rows that are scaled."""
    held, scale = _random(3, 4, 4, 4), _random(16, 1, 1) + 1
    skew = torch.from_numpy(held).double()
    weight = torch.from_numpy(_layer(net, "conv.weight"))
    for at, turn in enumerate(_turn(skew - skew.transpose(-1, -2))):
        apart = weight.reshape(-1, 2, 2 * 2**at, WIDTH, 3).transpose(1, 2)
        mixed = torch.einsum("bij,bjcd->bicd", turn, apart.reshape(-1, 4, WIDTH, 3))
        weight = mixed.reshape(-1, 2 * 2**at, 2, WIDTH, 3).transpose(1, 2).reshape(16, WIDTH, 3)
    tensors = {f"{AT}.conv.oft_blocks": held, f"{AT}.conv.rescale": scale}
    return tensors, {"conv.weight": weight.numpy() * scale}


def _oft_peft(net: Net) -> tuple[Tensors, Mapping[str, np.ndarray]]:
    """Of what a layer reads, in blocks of eight, by the series that peft takes."""
    held = _random(4, 28) / 10
    skew = torch.zeros(4, 8, 8, dtype=torch.float64)
    rows, columns = torch.triu_indices(8, 8, 1)
    skew[:, rows, columns] = torch.from_numpy(held).double()
    skew = skew - skew.transpose(1, 2)
    turn = torch.eye(8) + 2 * skew + 2 * skew @ skew + 2 * skew @ skew @ skew + skew @ skew @ skew @ skew
    made = torch.from_numpy(_layer(net, "query.weight")) @ torch.block_diag(*turn).T  # type: ignore[no-untyped-call]
    return {f"base_model.model.{AT}.query.oft_R.weight": held}, {"query.weight": made.numpy()}


KINDS: dict[str, Change] = {
    "ia3_offset": _ia3_offset, "oft": _oft, "boft": _boft, "oft_peft": _oft_peft,
    "lora": _lora, "dora": _dora, "kohya": _kohya, "core": _core, "lokr": _lokr, "loha": _loha, "ia3": _ia3,
    "vera": _vera, "scales": _scales, "bitfit": _bitfit, "loldu": _loldu, "full": _full, "sparse": _sparse,
}  # fmt: skip


def _with(net: Net, made: Mapping[str, np.ndarray]) -> np.ndarray:
    """What the model computes with other parameters, in torch and in float64."""
    other = Net().double().eval()
    named = {f"{AT}.{name}": torch.from_numpy(np.asarray(one, np.float64)) for name, one in made.items()}
    other.load_state_dict({**{name: one.double() for name, one in net.state_dict().items()}, **named})
    with torch.no_grad():
        found: np.ndarray = other(torch.from_numpy(FEED).double()).numpy()
    return found


def _run(model: AnyModel) -> np.ndarray:
    runner = model.reference()
    return runner({model.graph.inputs[0].name: FEED})[model.graph.outputs[0].name]


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("framework", ["onnx", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_makes_the_model_that_was_trained(
    kind: str, framework: str, net: Net, files: dict[str, Path], tmp_path: Path
) -> None:
    tensors, made = KINDS[kind](net)
    path = write_safetensors(tmp_path / "adapter.safetensors", tensors)
    if kind not in ("kohya",):
        write_config(tmp_path, lora_alpha=8, r=RANK, use_cayley_neumann=True, num_cayley_neumann_terms=5)
    base = open_file(files[framework])
    model = AdaptedModel(base, (AdapterSource(path, path.name),))
    np.testing.assert_allclose(_run(model), _with(net, made), atol=1e-5)  # outputs within one
    assert len(model.graph.ops()) == len(base.graph.ops())
    assert [weight.name for weight in model.graph.weights()] == [weight.name for weight in base.graph.weights()]
    changed = {f"{one.layer.removeprefix(AT)[1:]}.{one.part}" for one in model.merged[0].changes}
    assert changed == set(made)


def test_a_layer_without_a_bias_gets_one(net: Net, files: dict[str, Path], tmp_path: Path) -> None:
    shift = _random(WIDTH)
    path = write_safetensors(tmp_path / "a.safetensors", {f"{AT}.out.shift": shift})
    plain = _layer(net, "out.weight")

    class Shifted(Net):
        def __init__(self) -> None:
            super().__init__()
            self.encoder["layer"][0].out = nn.Linear(48, WIDTH)  # type: ignore[index]

    other = Shifted().double().eval()
    state = {name: one.double() for name, one in net.state_dict().items()}
    other.load_state_dict({**state, f"{AT}.out.bias": torch.from_numpy(shift.astype(np.float64))})
    with torch.no_grad():
        wanted = other(torch.from_numpy(FEED).double()).numpy()
    for file in files.values():
        model = AdaptedModel(open_file(file), (AdapterSource(path, path.name),))
        np.testing.assert_allclose(_run(model), wanted, atol=1e-5)  # outputs within one
    assert plain.shape == (WIDTH, 48)


def test_adapters_add_up_by_their_scales(net: Net, files: dict[str, Path], tmp_path: Path) -> None:
    """Half of one and minus a quarter of another, each of what it changes beside the base."""
    sources, wanted = list[AdapterSource](), {"query.weight": _layer(net, "query.weight").copy()}
    for number, scale in enumerate((0.5, -0.25)):
        tensors, made = (_lora, _lokr)[number](net)
        path = write_safetensors(tmp_path / f"{number}.safetensors", tensors)
        sources.append(AdapterSource(path, path.name, scale, alpha=8))
        wanted["query.weight"] += scale * (made["query.weight"] - _layer(net, "query.weight"))
    model = AdaptedModel(open_file(files["onnx"]), tuple(sources))
    np.testing.assert_allclose(_run(model), _with(net, wanted), atol=1e-5)  # outputs within one


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["onnx", "torch"])
def test_a_policy_compiles_the_adapted_model(
    framework: str, net: Net, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Encoded are the merged weights, with the bits of the base; the lock makes the same bytes again."""
    tensors, made = _lora(net)
    (tmp_path / "style").mkdir()
    write_safetensors(tmp_path / "style" / "adapter_model.safetensors", tensors)
    write_config(tmp_path / "style", lora_alpha=8, r=RANK)
    policy = tmp_path / "p.qpolicy"
    base = "qpolicy 1\ncalibrate generated { samples = 4 }\nrule linear { weights = int4 group 16 }\n"
    policy.write_text(f'{base}adapter "style/adapter_model.safetensors" {{ scale = 1.0 }}\n', encoding="utf-8")
    suffix = files[framework].suffix
    output = tmp_path / f"net.qcc{suffix}"
    assert main(["compile", str(files[framework]), "-p", str(policy), "-o", str(output)]) == 0
    told = capsys.readouterr().out
    assert "adapters  style/adapter_model.safetensors  LoRA: 1 weight changed by" in told
    plain = qcc.compile(files[framework], base, output=tmp_path / f"plain{suffix}")
    found = qcc.compile(files[framework], policy, output=tmp_path / f"again{suffix}")
    assert [row.bits for row in found.layers] == [row.bits for row in plain.layers]
    repeated = tmp_path / f"repeated{suffix}"
    arguments = ["compile", str(files[framework]), "--plan", str(output.with_suffix(".lock")), "-o", str(repeated)]
    assert main(arguments) == 0, capsys.readouterr().err
    assert repeated.read_bytes() == output.read_bytes()
    if framework == "onnx":
        feeds = {one.name: FEED for one in onnx.load(output).graph.input}
        runner = open_file(output).reference()
        values = next(iter(runner(feeds).values()))
        wanted = _with(net, made)
        assert np.abs(values - wanted).max() < 0.25 * np.abs(wanted).max()  # int4 with so few inputs


def test_a_model_that_is_adapted_and_nothing_else_is_written(net: Net, files: dict[str, Path], tmp_path: Path) -> None:
    tensors, made = _sparse(net)
    write_safetensors(tmp_path / "a.safetensors", tensors)
    (tmp_path / "p.qpolicy").write_text('qpolicy 1\nadapter "a.safetensors"\n', encoding="utf-8")
    result = qcc.compile(files["onnx"], tmp_path / "p.qpolicy", output=tmp_path / "out.onnx")
    assert result.passed and [one.kind for one in result.adapters[0].changes] == ["sparse"]
    model = open_file(tmp_path / "out.onnx")
    np.testing.assert_allclose(_run(model), _with(net, made), atol=1e-5)  # outputs within one


def _fault(files: dict[str, Path], tmp_path: Path, tensors: Tensors, **options: object) -> ModelError:
    path = write_safetensors(tmp_path / "a.safetensors", tensors)
    model = open_file(files["onnx"])
    before = model.graph.digest()
    with pytest.raises(ModelError) as caught:
        merge_adapters(model.graph, [AdapterSource(path, path.name, **options)])  # type: ignore[arg-type]
    assert model.graph.digest() == before
    return caught.value


def test_a_name_that_is_not_there_is_told_with_what_is_near(files: dict[str, Path], tmp_path: Path) -> None:
    tensors = {f"{AT}.query.diff": _random(48, 32), f"{AT}.qeury.diff": _random(48, 32)}
    fault = _fault(files, tmp_path, tensors)
    assert fault.code == "Q331" and f"did you mean `{AT}.query`" in str(fault.help), fault.help


def test_shapes_that_do_not_fit_are_told_both(files: dict[str, Path], tmp_path: Path) -> None:
    tensors = {f"{AT}.query.lora_A.weight": _random(4, 64), f"{AT}.query.lora_B.weight": _random(96, 4)}
    fault = _fault(files, tmp_path, tensors, alpha=4.0)
    assert fault.code == "Q332" and "96x64" in fault.message and "48x32" in fault.message


@pytest.mark.parametrize(
    ("tensors", "code", "words"),
    [
        ({"prompt_embeddings": (8, 32)}, "Q333", "prompts"),
        ({f"{AT}.adapter.down.weight": (8, 32)}, "Q331", "adapter.down"),
        ({f"{AT}.query.lora_A.weight": (4, 32), f"{AT}.query.lora_B.weight": (48, 4)}, "Q334", "alpha"),
        ({f"{AT}.query.lora_A.weight": (4, 32)}, "Q332", "`lora_B.weight`"),
        ({f"{AT}.query.vera_lambda_b": (48,), f"{AT}.query.vera_lambda_d": (4,)}, "Q332", "`vera_A`"),
        ({f"{AT}.query.diff": (48, 32), f"{AT}.query.ia3_l": (48, 1)}, "Q333", "file of its own"),
        ({}, "Q331", "no tensors"),
    ],
)
def test_what_is_no_change_of_a_weight_is_told(
    tensors: Mapping[str, tuple[int, ...]], code: str, words: str, files: dict[str, Path], tmp_path: Path
) -> None:
    fault = _fault(files, tmp_path, {name: _random(*shape) for name, shape in tensors.items()})
    assert fault.code == code and words in f"{fault.message} {fault.help}", fault


def test_names_that_mean_one_layer_are_told(files: dict[str, Path], tmp_path: Path) -> None:
    """A file for two models, of which only one is here."""
    tensors = {f"{part}.{AT}.query.diff": _random(48, 32) for part in ("text", "image")}
    fault = _fault(files, tmp_path, tensors)
    assert fault.code == "Q331" and "both mean" in fault.message
    path = write_safetensors(tmp_path / "b.safetensors", tensors)
    graph = open_file(files["onnx"]).graph
    (merged,) = merge_adapters(graph, [AdapterSource(path, path.name, only="text.*")])
    assert [one.layer for one in merged.changes] == [f"{AT}.query"]


def test_numbers_that_are_not_finite_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    wrong = _random(48, 32)
    wrong[3, 4] = np.nan
    assert _fault(files, tmp_path, {f"{AT}.query.diff": wrong}).code == "Q332"
    huge = np.full((48, 32), 3e38, np.float32)
    assert "too large" in _fault(files, tmp_path, {f"{AT}.query.diff": huge}, scale=10.0).message


@pytest.mark.slow
def test_a_table_and_its_head_are_told_apart(tmp_path: Path) -> None:
    """The head of a tied model is changed, and the table stays."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(12, 8), nn.Linear(8, 12, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            found: Tensor = self.head(torch.tanh(self.table(ids)))
            return found

    torch.manual_seed(0)
    tied, ids, delta = Tied().eval(), torch.arange(6)[None], _random(12, 8)
    wanted = torch.tanh(tied.table(ids)) @ (tied.head.weight + torch.from_numpy(delta)).T
    torch.export.save(torch.export.export(tied, (ids,)), tmp_path / "tied.pt2")
    to_onnx(tied, (ids,), tmp_path / "tied.onnx", external_data=False)
    path = write_safetensors(tmp_path / "a.safetensors", {"head.diff": delta})
    model = AdaptedModel(open_file(tmp_path / "tied.pt2"), (AdapterSource(path, path.name),))
    found = model.reference()({"ids": ids.numpy()})[model.graph.outputs[0].name]
    np.testing.assert_allclose(found, wanted.detach().numpy(), atol=1e-5)  # outputs of about one
    with pytest.raises(ModelError, match="a table and a head"):  # the exporter calls both by the name of one
        AdaptedModel(open_file(tmp_path / "tied.onnx"), (AdapterSource(path, path.name),))


@pytest.mark.parametrize("name", ["a.bin", "a.pt", "a.npz", "a"])
def test_no_other_file_is_read(name: str) -> None:
    with pytest.raises(QccError, match="Q203"):
        qcc.load_policy(f'qpolicy 1\nadapter "{name}"\nrule any {{ keep }}\n')
