"""Numba types: vectors, whose LLVM value is a vector, and tokens, which carry an ISA in a type."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox

from edgeqwen.simd.isa import Isa

ELEMENTS: dict[str, ir.Type] = {
    "f32": ir.FloatType(),
    "f16": ir.HalfType(),
    "i32": ir.IntType(32),
    "i16": ir.IntType(16),
    "i8": ir.IntType(8),
}


class VectorType(types.Type):  # type: ignore[misc]
    """``count`` elements in one LLVM vector, with the ISA for which operations are emitted."""

    def __init__(self, element: str, count: int, isa: Isa) -> None:
        self.element, self.count, self.isa = element, count, isa
        super().__init__(name=f"Vector({element} x {count}, {isa.name}/{isa.lanes})")

    @property
    def llvm_type(self) -> ir.VectorType:
        return ir.VectorType(ELEMENTS[self.element], self.count)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, type_: VectorType) -> None:
        super().__init__(manager, type_, type_.llvm_type)


class IsaType(types.Type):  # type: ignore[misc]
    """The Numba type of an ``Isa``: an argument of kernels that has no value at run time."""

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        super().__init__(name=f"Isa({isa.name}/{isa.lanes})")


class TokenModel(models.OpaqueModel):  # type: ignore[misc]
    """The model of types that only steer code generation: a null pointer."""


def register_token(value_class: type, token_type: Callable[[Any], types.Type]) -> None:
    """Lets kernels take values of a class whose whole meaning is in their Numba type.

    ``token_type(value)`` makes that type; it is a class of types.
    """
    register_model(token_type)(TokenModel)
    unbox(token_type)(_unbox_token)
    typeof_impl.register(value_class)(lambda value, context: token_type(value))


def _unbox_token(type_: types.Type, value: Any, context: Any) -> NativeValue:
    return NativeValue(context.context.get_dummy_value())


register_token(Isa, IsaType)
