"""LLVM's language, in which operations are emitted. Nothing of it is imported before code is."""

from typing import Any


class _Ir:
    """``llvmlite.ir``, and the types that come up everywhere: I8 to I64, F16, F32."""

    def __getattr__(self, name: str) -> Any:
        from llvmlite import ir as module

        value: Any
        if name in ("I8", "I16", "I32", "I64"):
            value = module.IntType(int(name[1:]))
        elif name in ("F16", "F32"):
            value = module.HalfType() if name == "F16" else module.FloatType()
        else:
            value = getattr(module, name)
        setattr(self, name, value)
        return value


ir: Any = _Ir()


def element_type(name: str) -> Any:
    """Returns the type of a vector's elements: f32, f16, i32, i16 or i8."""
    return getattr(ir, name.upper())
