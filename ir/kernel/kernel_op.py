"""All ops of domain ``qcc`` that kernel libraries take."""

from qcc.ir.kernel.attend_op import AttendOp, parse_attend
from qcc.ir.kernel.cached_op import CachedOp, parse_cached
from qcc.ir.kernel.chain_op import ChainOp, parse_chain
from qcc.ir.kernel.dense_op import DenseOp, parse_dense
from qcc.ir.kernel.op import LinearOp, parse
from qcc.ir.kernel.pool_op import PoolOp, parse_pool
from qcc.ir.kernel.sequence_op import SequenceOp, parse_sequence

KernelOp = LinearOp | SequenceOp | ChainOp | PoolOp | AttendOp | CachedOp | DenseOp


def parse_kernel(name: str) -> KernelOp:
    """The op that a name stands for.

    Raises:
        OpError: it is no such name.
    """
    apart = parse_chain(name) or parse_pool(name) or parse_attend(name) or parse_cached(name) or parse_dense(name)
    return apart or parse_sequence(name) or parse(name)
