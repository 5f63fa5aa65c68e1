"""The ways in which an attention is written, each with what it takes."""

import onnx_ir as ir

from qcc.ir.errors import Refused
from qcc.ir.graph.attention import Attention, AttentionForm, BlockSparseScores, DocumentsApart, OneOp, ScaledByRows
from qcc.ir.graph.graph import Graph
from qcc.ir.onnx.attention.block_sparse import check_block_sparse, write_block_sparse
from qcc.ir.onnx.attention.documents import check_documents, write_documents
from qcc.ir.onnx.attention.fuse import check_fusible, fuse
from qcc.ir.onnx.attention.rescale import check_scalable, rescale

LEAST_OPSET, OPSET = 13, 23  # that of `Attention`
WINDOWED = 5  # axes of a mask that is another for each window of an image


def check_attention(graph: Graph, one: Attention, how: AttentionForm) -> int:
    """See that a graph can compute an attention so; the opset that it needs.

    Raises:
        Refused: it cannot.
    """
    if isinstance(how, ScaledByRows):
        check_scalable(graph, one)
        return LEAST_OPSET
    if isinstance(how, DocumentsApart):
        check_documents(graph, one, how)
        return OPSET
    if isinstance(how, BlockSparseScores):
        check_block_sparse(graph, one)
        return OPSET
    if isinstance(how, OneOp):
        check_fusible(graph, one, WINDOWED)
        return OPSET
    raise Refused("this kind of graph has no op for it")


def write_attention(model: ir.Model, one: Attention, how: AttentionForm) -> None:
    """Write it; the model's opset is high enough, and `check_attention` refused nothing."""
    if isinstance(how, ScaledByRows):
        rescale(model, one, how)
    elif isinstance(how, DocumentsApart):
        write_documents(model, one, how)
    elif isinstance(how, BlockSparseScores):
        write_block_sparse(model, one, how)
    else:
        fuse(model, one)
