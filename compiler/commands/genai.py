"""Write a folder from which onnxruntime-genai generates.

In it are the model, a `genai_config.json` and the tokenizer's files. The model
is one of tokens with caches, in floats or in codes by channel, as it came or as
`qcc compile` wrote it. What the configuration says is read off the graph
(names, heads, layers) and off the tokenizer's folder (tokens, and what
`config.json` and `generation_config.json` say, where they lie there). Nothing
is written where something is wrong.
"""

import argparse
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.compiler.console import terminal
from qcc.dsl.diagnostics.excerpt import escape

EXAMPLES = """examples:
  qcc genai model.qcc.onnx tokenizer/ -o chat/
  qcc genai model.onnx tokenizer.json --eos "<|im_end|>" -o chat/
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="an .onnx file of a model of tokens with caches")
    add("tokenizer", metavar="TOKENIZER", type=Path, help="the folder of its tokenizer, or a tokenizer.json")
    add("-o", "--output", metavar="FOLDER", type=Path, required=True, help="the folder to write; it holds nothing yet")
    add(
        "--context",
        metavar="N",
        type=int,
        help="tokens that it reads at most (default: what the files say)",
    )
    add("--eos", metavar="TOKEN", default="", help="the token that ends a text, where nothing else tells")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Write it."""
    with held_back():  # modules in C do not stand being interrupted while they load
        from qcc.compiler.genai.folder import write_folder
    done = write_folder(args.model, args.tokenizer, args.output, args.context, args.eos)
    if args.format == "json":
        told = {"folder": str(done.folder), "files": list(done.files), "config": done.config, "diagnostics": []}
        terminal.write_json(told)
        return 0
    decoder = done.config["model"]["decoder"]
    layers, heads = decoder["num_hidden_layers"], decoder["num_key_value_heads"]
    terminal.write_line(f"{escape(str(done.folder))}: {', '.join(map(escape, done.files))}")
    terminal.write_line(f"{layers} layers, {heads} heads of keys, {done.config['model']['context_length']:,} tokens")
    return 0
