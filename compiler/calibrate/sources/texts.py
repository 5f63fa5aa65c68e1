"""Lines of text, through a tokenizer."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qcc.compiler.calibrate.sources.spool import Feed
from qcc.ir.errors import ModelError, first_line
from qcc.ir.graph.ops import Value

LONGEST = 128  # tokens of a line, where the model takes any number
FILE = "tokenizer.json"
MADE: dict[str, Callable[[Any], Sequence[int]]] = {
    "input_ids": lambda one: one.ids,
    "attention_mask": lambda one: one.attention_mask,
    "token_type_ids": lambda one: one.type_ids,
    "position_ids": lambda one: range(len(one.ids)),
}


def text_feeds(path: Path, inputs: Sequence[Value], tokenizer: Path | None) -> Iterator[Feed]:
    """One feed for each line that is not empty.

    Args:
        path: of the text.
        inputs: of the model.
        tokenizer: a ``tokenizer.json``, or the folder in which one lies.

    Raises:
        ModelError: there is no tokenizer, or the model takes something else.
    """
    if tokenizer is None:
        help = "name that of the model: `--tokenizer tokenizer.json`"
        raise ModelError("Q543", f"`{path}` is text, and no tokenizer is named", help)
    if unknown := [value.name for value in inputs if value.name not in MADE]:
        help = f"text becomes {', '.join(MADE)}; a script feeds anything"
        raise ModelError("Q543", f"no text becomes the input `{unknown[0]}`", help)
    fixed = next((s for one in inputs for s in (one.shape or ())[1:2] if isinstance(s, int)), None)
    encode = _tokenizer(tokenizer, fixed)
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    made = encode(line.strip())
                    if made.ids:
                        yield {one.name: np.array([MADE[one.name](made)], one.dtype) for one in inputs}
    except UnicodeDecodeError as error:
        raise ModelError("Q543", f"`{path}` is no text in UTF-8") from error


def _tokenizer(path: Path, fixed: int | None) -> Callable[[str], Any]:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ModelError("Q544", "a text takes a tokenizer's library", "`pip install 'qcc[text]'`") from error
    found = path / FILE if path.is_dir() else path
    try:
        made = Tokenizer.from_str(found.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare ones
        raise ModelError("Q543", f"`{found}` is no tokenizer: {first_line(error)}", f"it is a `{FILE}`") from error
    made.enable_truncation(fixed or LONGEST)
    if fixed:
        made.enable_padding(length=fixed)
    else:
        made.no_padding()
    encode: Callable[[str], Any] = made.encode
    return encode
