"""The canonical functions of each kind of op, with the attributes that each has: the words both adapters speak.

``name:attribute,attribute``. An attribute is there whenever it is known, defaults included; one that is missing is
unknown. Axes count from zero wherever the rank is known.

- ``transposed``: those of the first two operands whose last two axes are swapped before they are multiplied, a linear
  op's weight among them. The layout in which that is stored is its exporter's choice; a weight's view tells it too.
- An average over the whole of all spatial axes is a ``mean``, whatever the framework calls it.
- ``kernel``, ``strides``: one number a spatial axis; ``pads``: all begins, then all ends.
- ``sizes``: of a split's parts, of an adaptive pool's output, of a reshape's output; -1 is unknown.
- ``axis`` of a layer or RMS norm: the first that is normalised, as are all that follow.
- ``heads``: of the queries, and of keys and values. ``scale``: what the scores are multiplied by.
- ``min``, ``max`` of a clip: its bounds, which are also its second and third inputs.
"""

from collections.abc import Callable, Mapping

from qcc.ir.graph.ops import Kind

_WORDS: dict[Kind, str] = {
    Kind.LINEAR: "linear:transposed",
    Kind.CONV: "conv:groups,kernel,strides,pads conv_transpose:groups,kernel,strides,pads",
    Kind.EMBEDDING: "embedding",
    Kind.RECURRENT: "lstm gru rnn",
    Kind.MATMUL: "matmul:transposed",
    Kind.ELEMENTWISE: (
        "relu leaky_relu:alpha prelu elu:alpha selu celu:alpha sigmoid hard_sigmoid:alpha,beta tanh gelu:approximate "
        "erf exp log sqrt rsqrt reciprocal neg abs clip:min,max softplus softsign mish hard_swish silu "
        "thresholded_relu:alpha floor ceil round sign not isnan sin cos dropout identity cast:to"
    ),
    Kind.BINARY: (
        "add sub mul div pow min max mod and or xor equal not_equal less less_or_equal greater greater_or_equal where "
        "average"
    ),
    Kind.NORM: (
        "layer_norm:axis,epsilon rms_norm:axis,epsilon batch_norm:epsilon group_norm:groups,epsilon "
        "instance_norm:epsilon local_response_norm lp_norm:axis"
    ),
    Kind.SOFTMAX: "softmax:axis log_softmax:axis hardmax:axis",
    Kind.ATTENTION: "attention:causal,scale,heads",
    Kind.RESHAPE: "reshape:sizes squeeze:axes unsqueeze:axes expand:sizes",
    Kind.TRANSPOSE: "transpose:perm",
    Kind.CONCAT: "concat:axis",
    Kind.SPLIT: "split:axis,sizes unbind:axis",
    Kind.GATHER: (
        "gather:axis gather_elements:axis gather_nd scatter:axis scatter_nd slice:axes,starts,ends,steps "
        "pad:pads,mode,value"
    ),
    Kind.POOL: (
        "max_pool:kernel,strides avg_pool:kernel,strides lp_pool:kernel,strides adaptive_avg_pool:sizes "
        "adaptive_max_pool:sizes global_lp_pool"
    ),
    Kind.REDUCE: (
        "mean:axes,keepdims sum:axes,keepdims max:axes,keepdims min:axes,keepdims prod:axes,keepdims l1:axes,keepdims "
        "l2:axes,keepdims logsumexp:axes,keepdims sum_square:axes,keepdims argmax:axes,keepdims argmin:axes,keepdims "
        "any:axes,keepdims all:axes,keepdims cumsum:axis"
    ),
    Kind.CONSTANT: "constant fill range shape",
}

FUNCTIONS: dict[tuple[Kind, str], frozenset[str]] = {
    (kind, name): frozenset(filter(None, attributes.split(",")))
    for kind, words in _WORDS.items()
    for name, _, attributes in (word.partition(":") for word in words.split())
}


def table(words: Mapping[Kind, str], spell: Callable[[str], str]) -> dict[str, tuple[Kind, str]]:
    """A framework's ops with the kind and function of each.

    Args:
        words: for each kind the framework's names, ``name=function`` where ``spell`` does not give the function.
        spell: the usual function of a framework's name.
    """
    return {
        name: (kind, function or spell(name))
        for kind, names in words.items()
        for name, _, function in (word.partition("=") for word in names.split())
    }
