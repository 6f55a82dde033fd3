"""Arrays over memory that something else owns, inside compiled code."""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array


@intrinsic
def strided(typingctx: Any, address: Any, count: Any, step: Any, number: Any) -> Any:
    """The one-dimensional array of `count` numbers from an address on, `step` bytes apart; it owns nothing."""
    array = types.Array(number.dtype, 1, "A")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = context.make_array(array)(context, builder)
        size = context.get_constant(types.intp, number.dtype.bitwidth // 8)
        data = builder.inttoptr(args[0], made.data.type)
        populate_array(made, data=data, shape=[args[1]], strides=[args[2]], itemsize=size, meminfo=None)
        return made._getvalue()

    return array(types.intp, types.intp, types.intp, number), codegen
