"""The domain of the ops that are ours, and how their functions are written."""

from collections.abc import Iterable

import onnx.parser
import onnx_ir as ir

DOMAIN = "qcc"
VERSION = 1


def function(
    name: str,
    inputs: Iterable[str],
    lines: Iterable[str],
    outputs: str,
    opset: int,
    attributes: str = "",
    ours: bool = False,
) -> ir.Function:
    """A function of our domain from the lines of its body; outputs and attributes are separated by commas.

    ``ours``: the body calls other functions of our domain.
    """
    body = "\n".join(f"  {line}" for line in lines)
    own = f', "{DOMAIN}" : {VERSION}' if ours else ""
    head = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}{own}]>'
    parameters = f"<{attributes}> " if attributes else ""
    text = f"{head}\n{name} {parameters}({', '.join(inputs)}) => ({outputs})\n{{\n{body}\n}}"
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))
