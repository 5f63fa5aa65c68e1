"""Compile a transformers model, check it, export it and run the export: python pretrained.py OUT [--model FOLDER].

FOLDER is what ``save_pretrained`` writes, such as a download of a model's repository; without it a small BERT with
random weights stands for yours. Into OUT go the compact program, the ONNX model, their locks and reports, and for a
target such as ``cpu(avx2)`` kernels (they take a C compiler and ``qcc[kernels]``).
"""

import argparse
from pathlib import Path

import torch
import transformers

import qcc

POLICY = """qpolicy 1
target {target}
calibrate generated {{ samples = 8 }}
rule linear {{ weights = int4 group 32; rounding = gptq }}
rule embedding {{ weights = int8 channel }}
verify {{ cosine >= 0.95 }}
"""


def small_bert(folder: Path) -> None:
    """Two layers with random weights, saved as any model of the library is."""
    config = transformers.BertConfig(
        vocab_size=1000, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)


def main() -> None:
    """Compile, check, export, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, metavar="FOLDER")
    parser.add_argument("--target", default="onnxruntime", help="where the model is to run, as policies say it")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder = arguments.model or arguments.out / "bert"
    if arguments.model is None:
        small_bert(folder)

    compact = arguments.out / "compact.pt2"
    result = qcc.compile(folder, POLICY.format(target=arguments.target), output=compact)
    if not result.passed:
        raise SystemExit("the verification failed")

    model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    ids = torch.randint(0, model.config.vocab_size, (2, 16))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    module = torch.export.load(compact).module()
    with torch.no_grad():
        wanted, found = model(**given).last_hidden_state, module(**given)["last_hidden_state"]
    near = torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), dim=0)
    floats = sum(one.nbytes for one in model.state_dict().values())
    print(f"{compact.name}: {compact.stat().st_size:,} bytes for {floats:,} of floats; cosine {near:.4f} in PyTorch")

    made = result.to_onnx(arguments.out / "compact.onnx")
    session = qcc.Session(made.output)
    names = [one.name for one in session.inputs]
    output = torch.from_numpy(next(iter(session.run({name: given[name].numpy() for name in names}).values())))
    near = torch.nn.functional.cosine_similarity(output.flatten(), wanted.flatten(), dim=0)
    kernels = f"with {session.kernels.name}" if session.kernels else "without kernels"
    print(f"{made.output.name}: {made.output_bytes:,} bytes; cosine {near:.4f} in ONNX Runtime, {kernels}")


if __name__ == "__main__":
    main()
