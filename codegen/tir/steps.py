"""What follows a product: steps on single values, and norms over rows.

A step is a formula of the vocabulary, read here (`TirArithmetic`) on vectors of 16 lanes and on single numbers alike,
in arithmetic alone, so that no library of mathematics is called. NaN stays NaN; at infinities and beyond float32's
range a step is what its formula is there.
"""

from collections.abc import Callable, Sequence
from functools import reduce

from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import LANES, Expr, T
from qcc.ir.kernel.op import STEPS, step_inputs

LOG2_E = 1.4426950408889634
LN2 = (0.693359375, -2.12194440e-4)  # a part that is exact in 10 bits, and the rest
ROUND = 12582912.0  # 1.5 * 2**23: added to a number, its lowest bits are the number's integer
ROUND_BITS = 0x4B400000
EXPM1 = (0.49999998, 0.16666543, 0.0416672, 0.00836665, 0.00138825)
CENTRE = (
    *(0.135949984, -0.0677437782, 0.050026007, -0.0399264134, 0.0319645256, -0.0247537661, 0.0181168728, -0.0123921251),
    *(0.00807052851, -0.00499320123, 0.00255563785, -0.00104565721, 0.000692209869, -0.000539195491, 0.000172198968),
)
END = 5.2  # beyond, the normal distribution is 0 or 1, to 1e-7
FLAT = 10.0  # tanh is 1 beyond, in float32
ACCUMULATORS = 4


def _typed(dtype: str, value: Expr) -> str:
    """The type of that element with as many lanes as a value."""
    return "x".join((dtype, *str(value.ty).split("x")[1:]))


def _hold(value: Expr) -> Expr:
    """A value that is used more than once, in a register: TVM's simplifier puts what ``T.bind`` names in every place
    where it stands, and so takes exponential time.
    """
    element, _, lanes = str(value.ty).partition("x")
    register = T.alloc_buffer((int(lanes or 1),), element, scope=emit.register_scope())
    place = T.ramp(0, 1, int(lanes)) if lanes else 0
    T.buffer_store(register, value, [place])
    return register[place]


def _select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    """Lane by lane; a constant goes in all of them."""
    vector = "x" in str(condition.ty)
    spread = [emit.spread(T.float32(one)) if vector else T.float32(one) for one in (yes, no) if isinstance(one, float)]
    return T.Select(condition, *(spread.pop(0) if isinstance(one, float) else one for one in (yes, no)))


def _clamp(value: Expr, low: float, high: float) -> Expr:
    """Into the bounds, but NaN, which every comparison sends on: ``T.max`` promises no such order."""
    above = _hold(_select(value < low, low, value))
    return _hold(_select(above > high, high, above))


def _polynomial(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """Lowest power first, by Horner."""
    return reduce(lambda sum_, c: _hold(sum_ * x + c), reversed(coefficients[:-1]), coefficients[-1])


def _powers(value: Expr) -> tuple[Expr, Expr]:
    """``2**n`` and ``exp(r) - 1`` with ``value = n ln 2 + r`` and ``n`` the nearest integer, -127 (zero) to 128
    (infinity).

    ``exp(r) - 1 = r + r**2 P(r)``, P minimax for the relative error, 1.3e-8 (Lawson's algorithm, in float64). The
    reduction in two parts is that of Cody and Waite, Software manual for the elementary functions, 1980, chapter 6.
    """
    shifted = _hold(value * LOG2_E + ROUND)
    number = _hold(T.reinterpret(_typed("int32", value), shifted) - (ROUND_BITS - 127))
    power = _hold(T.reinterpret(_typed("float32", value), T.shift_left(number, 23)))
    whole = _hold(shifted - ROUND)
    rest = _hold(value - whole * LN2[0] - whole * LN2[1])
    return power, _hold(rest + rest * rest * _polynomial(rest, EXPM1))


def _exp(value: Expr) -> Expr:
    """``exp``, to 1e-7 of itself; 0 from about -87.7 down, infinity from 88.4 up."""
    power, rest = _powers(_clamp(value, -88.0, 88.7))
    return _hold(power * (rest + 1.0))


def _logistic(value: Expr) -> Expr:
    return _hold(1.0 / (_exp(0.0 - value) + 1.0))


def _tanh(value: Expr) -> Expr:
    """``u / (u + 2)`` with ``u = exp(2 value) - 1``, which keeps its accuracy around 0."""
    power, rest = _powers(_hold(_clamp(value, -FLAT, FLAT) * 2.0))
    less_one = _hold(power * rest + (power - 1.0))
    return less_one / (less_one + 2.0)


def _normal(value: Expr) -> Expr:
    """The normal distribution ``(1 + erf(value / sqrt(2))) / 2``, to 1.3e-7.

    ``1 / 2 + value P(t)``, ``t`` the square brought from 0 to `END` squared into -1 to 1, where P's coefficients are
    small and alternate, so that float32 loses nothing; P minimax for the error of ``value`` times the distribution,
    3.2e-8 (Lawson's algorithm). It takes no division, and less than half of what a tail that is right in itself does.
    """
    square = _hold(value * value)
    near = _hold(value * _polynomial(_hold(square * (2 / END**2) - 1.0), CENTRE) + 0.5)
    return _select(square >= END**2, _hold(_select(value > 0.0, 1.0, 0.0)), near)


class TirArithmetic:
    """The reading of formulas (`Arithmetic`) that kernels are made of."""

    def above(self, value: Expr, low: float) -> Expr:
        """See `Arithmetic.above`."""
        return _hold(_select(value < low, low, value))

    def clamp(self, value: Expr, low: float, high: float) -> Expr:
        """See `Arithmetic.clamp`."""
        return _clamp(value, low, high)

    def exp(self, value: Expr) -> Expr:
        """See `Arithmetic.exp`."""
        return _exp(value)

    def logistic(self, value: Expr) -> Expr:
        """See `Arithmetic.logistic`."""
        return _logistic(value)

    def tanh(self, value: Expr) -> Expr:
        """See `Arithmetic.tanh`."""
        return _tanh(value)

    def normal(self, value: Expr) -> Expr:
        """See `Arithmetic.normal`."""
        return _normal(value)


TIR = TirArithmetic()


def applied(steps: tuple[str, ...], value: Expr, operands: Sequence[Expr]) -> Expr:
    """What the steps make of a value, with their operands in order."""
    value, left = _hold(value), list(operands)
    for step in steps:
        count, formula = len(STEPS[step].operands), STEPS[step].formula
        assert formula is not None, f"{step} is no function of single values"
        value, left = _hold(formula(TIR, value, *left[:count])), left[count:]
    return value


def chain(name: str, steps: tuple[str, ...]) -> Expr:
    """A function ``(raw, operands of the steps..., to, y, stride, n, rows, count)`` that ends a tile of a product.

    ``to[row, column] = steps(raw[row, column])`` for ``count`` columns. Rows of ``raw`` are ``stride`` apart and whole
    vectors, those of ``to`` and of tensors ``n``; vectors start at the first column, too. ``y`` is not touched.
    """
    operands = step_inputs(steps)
    pointers = ["raw", *(name for name, _ in operands), "to"]
    with emit.function(name) as builder:
        unaligned = " ".join(pointers[1:])
        arguments = emit.arguments(dict.fromkeys(pointers, "float32"), ("stride", "n", "rows", "count"), unaligned)
        raw, *read, to, _, stride, n, rows, count = arguments

        def columns(row: Expr, first: Expr, place: Callable[[Expr], Expr]) -> None:
            at = [first if kind == "vector" else row * n + first for _, kind in operands]
            taken = [buffer[place(index)] for buffer, index in zip(read, at, strict=True)]
            value = applied(steps, raw[place(row * stride + first)], taken)
            if not steps:  # a loop that copies alone would become a call of memcpy, 10 ns for each row of a tile
                value = emit.llvm("llvm.arithmetic.fence", str(value.ty), value)
            T.buffer_store(to, value, [place(row * n + first)])

        with T.serial(T.int64(0), rows) as row:
            whole = T.bind(T.truncdiv(count, T.int64(LANES)))
            with T.serial(T.int64(0), whole) as block:
                columns(row, block * LANES, emit.lanes)
            with T.serial(whole * LANES, count) as column:
                columns(row, column, lambda index: index)
    return builder.get()


def norm(name: str, step: str) -> Expr:
    """A function ``(value, gain, shift if any, epsilon, to, y, n, rows)``: rows over the root of their mean square.

    A norm that is centred takes each row's mean off before, and sums the squares only then, so that rows far from zero
    keep their digits. ``to`` may be ``value``. ``y`` is not touched.
    """
    vectors = [operand for operand, _ in STEPS[step].operands]
    pointers = ["value", *vectors, "epsilon", "to"]
    with emit.function(name, noalias=False) as builder:
        declared = emit.arguments(dict.fromkeys(pointers, "float32"), ("n", "rows"), " ".join(pointers))
        value, *read, epsilon, to, _, n, rows = declared
        with T.serial(T.int64(0), rows) as row:
            start, size = T.bind(row * n), T.bind(T.cast(n, "float32"))
            mean: Expr = T.float32(0)
            if STEPS[step].centred:
                mean = T.bind(_sum(value, start, n, lambda one: one) / size)
            square = T.bind(_sum(value, start, n, lambda one: (one - mean) * (one - mean)) / size)
            scale = T.bind(T.float32(1) / T.sqrt(square + epsilon[0]))

            def columns(first: Expr, place: Callable[[Expr], Expr]) -> None:
                normal = (value[place(start + first)] - mean) * scale * read[0][place(first)]
                shifted = normal + read[1][place(first)] if len(read) > 1 else normal
                T.buffer_store(to, shifted, [place(start + first)])

            whole = T.bind(T.truncdiv(n, T.int64(LANES)))
            with T.serial(T.int64(0), whole) as block:
                columns(block * LANES, emit.lanes)
            with T.serial(whole * LANES, n) as column:
                columns(column, lambda index: index)
    return builder.get()


def _sum(value: Expr, start: Expr, n: Expr, term: Callable[[Expr], Expr]) -> Expr:
    """The sum of a term over a row, in chains of every 64th value."""
    sums, single = emit.accumulators(ACCUMULATORS), T.alloc_buffer((1,), "float32", scope="global")
    emit.clear(sums)
    T.buffer_store(single, T.float32(0), [0])
    stride = LANES * ACCUMULATORS
    whole = T.bind(T.truncdiv(n, T.int64(stride)))
    with T.serial(T.int64(0), whole) as block:
        for index, part in enumerate(sums):
            emit.add(part, term(value[emit.lanes(start + block * stride + index * LANES)]))
    blocks = T.bind(T.truncdiv(n, T.int64(LANES)))
    with T.serial(whole * ACCUMULATORS, blocks) as block:
        emit.add(sums[0], term(value[emit.lanes(start + block * LANES)]))
    with T.serial(blocks * LANES, n) as column:
        T.buffer_store(single, single[0] + term(value[start + column]), [0])
    total = (emit.get(sums[0]) + emit.get(sums[1])) + (emit.get(sums[2]) + emit.get(sums[3]))
    return T.bind(single[0] + emit.total(total))
