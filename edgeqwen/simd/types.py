"""The types of kernels: Numba's own, vectors, and tokens.

Importing this imports Numba: other modules reach it as ``edgeqwen.simd.compile.types``.
"""

from typing import Any

from llvmlite import ir
from numba import from_dtype, types
from numba.extending import NativeValue, models, register_model, unbox

from edgeqwen.simd.isa import Isa
from edgeqwen.simd.llvm_ir import element_type

__all__ = ["TokenType", "VectorType", "from_dtype"]


def __getattr__(name: str) -> Any:
    return getattr(types, name)


class VectorType(types.Type):  # type: ignore[misc]
    """``count`` elements in one LLVM vector, with the ISA for which operations are emitted."""

    def __init__(self, element: str, count: int, isa: Isa) -> None:
        self.element, self.count, self.isa = element, count, isa
        super().__init__(name=f"Vector({element} x {count}, {isa.name}/{isa.lanes})")

    @property
    def llvm_type(self) -> ir.VectorType:
        return ir.VectorType(element_type(self.element), self.count)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, type_: VectorType) -> None:
        super().__init__(manager, type_, type_.llvm_type)


class TokenType(types.Type):  # type: ignore[misc]
    """The Numba type of a token: ``value`` is the token itself."""

    def __init__(self, value: Any) -> None:
        self.value, self.isa = value, getattr(value, "isa", None)
        super().__init__(name=value.token_name)


@register_model(TokenType)
class _TokenModel(models.OpaqueModel):  # type: ignore[misc]
    """A token steers code generation only: a null pointer."""


@unbox(TokenType)  # type: ignore[untyped-decorator]
def _unbox_token(type_: TokenType, value: Any, context: Any) -> NativeValue:
    return NativeValue(context.context.get_dummy_value())
