"""Operators for kernels: a + b, a - b and a * b on vectors of one type."""

import operator
from typing import Any

from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

from edgeqwen.simd.types import VectorType

_OPERATORS = {
    operator.add: ("fadd", "add"),
    operator.sub: ("fsub", "sub"),
    operator.mul: ("fmul", "mul"),
}


def _register(function: Any, float_op: str, integer_op: str) -> None:
    @infer_global(function)
    class VectorOperator(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args, kws):  # type: ignore[no-untyped-def]
            if len(args) == 2 and isinstance(args[0], VectorType) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(function, VectorType, VectorType)
    def lower(context, builder, sig, values):  # type: ignore[no-untyped-def]
        name = float_op if sig.return_type.element == "f32" else integer_op
        return getattr(builder, name)(*values)


for _function, _names in _OPERATORS.items():
    _register(_function, *_names)
