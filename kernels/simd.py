"""Explicit vectors for Numba: loops over rows that are vector code by construction.

LLVM vectorises a plain loop only when it can prove that indices are not negative and that arrays do
not overlap, and an innocent edit makes it fall back to scalar code, four and more times slower. The
kernels of forests say instead what is a vector: `load(array, index, lanes)` gives a value of LLVM's
type <lanes x element>, which the processor's registers hold as well as they can (16 float32 are one
AVX-512 register, two of AVX2, four of NEON). Arrays are contiguous and one-dimensional. Indices are
checked only under NUMBA_BOUNDSCHECK=1, as Numba's own are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

CACHE_LINE = 64


def aligned(size: int, dtype: Any) -> np.ndarray:
    """An uninitialised one-dimensional array that begins at a cache line: vectors that cross lines cost twice."""
    kind = np.dtype(dtype)
    raw = np.empty(size * kind.itemsize + CACHE_LINE, dtype=np.uint8)
    skip = -raw.ctypes.data % CACHE_LINE
    return raw[skip : skip + size * kind.itemsize].view(kind)


class Vector(types.Type):
    """<lanes x dtype>; comparisons give vectors of booleans, which are one bit a lane."""

    def __init__(self, dtype: types.Type, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        element = ir.IntType(1) if vector.dtype == types.boolean else manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def _constant(lanes: Any) -> int:
    if not isinstance(lanes, types.IntegerLiteral):
        raise TypingError("the number of lanes is a constant")
    return int(lanes.literal_value)


def _array(array: Any) -> types.Array:
    if not (isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"):
        raise TypingError(f"vectors are read from contiguous one-dimensional arrays, not {array}")
    return array


def _pointer(context: Any, builder: Any, array: Any, value: Any, index: Any, lanes: int) -> Any:
    """The address of element `index`, checked to have `lanes` elements behind it when Numba checks bounds."""
    view = context.make_array(array)(context, builder, value)
    if context.enable_boundscheck:
        length = builder.extract_value(view.shape, 0)
        cgutils.do_boundscheck(context, builder, index, length, 0)
        last = builder.add(index, ir.Constant(index.type, lanes - 1))
        cgutils.do_boundscheck(context, builder, last, length, 0)
    return builder.gep(view.data, [index], inbounds=True)


@intrinsic
def load(typingctx: Any, array: Any, index: Any, lanes: Any) -> Any:
    """The vector array[index : index + lanes]."""
    count = _constant(lanes)
    vector = Vector(_array(array).dtype, count)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(vector)
        pointer = _pointer(context, builder, array, args[0], args[1], count)
        return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=array.dtype.bitwidth // 8)

    return vector(array, types.intp, lanes), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, vector: Any) -> Any:
    """array[index : index + lanes] = vector."""
    if not isinstance(vector, Vector) or _array(array).dtype != vector.dtype:
        raise TypingError(f"{vector} does not go into {array}")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(vector)
        pointer = _pointer(context, builder, array, args[0], args[1], vector.lanes)
        builder.store(args[2], builder.bitcast(pointer, kind.as_pointer()), align=vector.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), codegen


@intrinsic
def prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    """Asks for the cache line of array[index], which will be read soon."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        place = builder.bitcast(_pointer(context, builder, _array(array), args[0], args[1], 1), byte)
        word = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0"
        )
        # For reading, into all caches, as data.
        builder.call(function, [place, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.none(array, types.intp), codegen


@intrinsic
def splat(typingctx: Any, scalar: Any, lanes: Any) -> Any:
    """A vector of one number in all lanes."""
    vector = Vector(types.unliteral(scalar), _constant(lanes))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splatted(context, builder, vector, args[0])

    return vector(vector.dtype, lanes), codegen


def _splatted(context: Any, builder: Any, vector: Vector, scalar: Any) -> Any:
    kind = context.get_value_type(vector)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)


@intrinsic
def select(typingctx: Any, mask: Any, yes: Any, no: Any) -> Any:
    """`yes` where the mask holds, else `no`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return yes(mask, yes, no), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, with one rounding where the processor can."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(a)
        element = {32: "f32", 64: "f64"}[a.dtype.bitwidth]
        name = f"llvm.fmuladd.v{a.lanes}{element}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(function, args)

    return a(a, b, c), codegen


@intrinsic
def join(typingctx: Any, low: Any, high: Any) -> Any:
    """One vector of twice the lanes: first those of `low`, then those of `high`."""
    target = Vector(low.dtype, 2 * low.lanes)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), target.lanes), list(range(target.lanes)))
        return builder.shuffle_vector(args[0], args[1], mask)

    return target(low, high), codegen


@intrinsic
def turned(typingctx: Any, vectors: Any) -> Any:
    """Eight vectors of 8 or 16 lanes, transposed within each eight lanes: lane j of vector i becomes lane i of j."""
    lanes = vectors.dtype.lanes

    def mask(bit: int, second: bool) -> Any:
        own, other = [lane | bit if second else lane for lane in range(lanes)], lanes
        picked = [own[lane] if not lane & bit else other + (lane if second else lane & ~bit) for lane in range(lanes)]
        return ir.Constant(ir.VectorType(ir.IntType(32), lanes), picked)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = cgutils.unpack_tuple(builder, args[0], 8)
        for bit in (1, 2, 4):
            for i in range(8):
                if not i & bit:
                    a, b = found[i], found[i | bit]
                    found[i] = builder.shuffle_vector(a, b, mask(bit, second=False))
                    found[i | bit] = builder.shuffle_vector(a, b, mask(bit, second=True))
        return cgutils.pack_array(builder, found)

    return vectors(vectors), codegen


@intrinsic
def count(typingctx: Any, mask: Any) -> Any:
    """How many lanes of a mask hold."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    return types.intp(mask), codegen


def _arithmetic(floating: str, integral: str) -> Callable[[Any, Vector, Any, Any], Any]:
    def emit(builder: Any, vector: Vector, a: Any, b: Any) -> Any:
        return getattr(builder, floating if isinstance(vector.dtype, types.Float) else integral)(a, b)

    return emit


def _comparison(sign: str) -> Callable[[Any, Vector, Any, Any], Any]:
    def emit(builder: Any, vector: Vector, a: Any, b: Any) -> Any:
        if isinstance(vector.dtype, types.Float):
            return builder.fcmp_ordered(sign, a, b)
        return (builder.icmp_signed if vector.dtype.signed else builder.icmp_unsigned)(sign, a, b)

    return emit


def _define(symbol: Any, emit: Callable[[Any, Vector, Any, Any], Any], compares: bool) -> None:
    """Gives a Python operator its meaning for two vectors of one type."""

    @infer_global(symbol)
    class Operator(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(Vector(types.boolean, args[0].lanes) if compares else args[0], *args)
            return None

    @lower_builtin(symbol, Vector, Vector)
    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, sig.args[0], *args)


_define(operator.add, _arithmetic("fadd", "add"), compares=False)
_define(operator.sub, _arithmetic("fsub", "sub"), compares=False)
_define(operator.mul, _arithmetic("fmul", "mul"), compares=False)
_define(operator.gt, _comparison(">"), compares=True)
_define(operator.le, _comparison("<="), compares=True)
