"""Functions that are written into kernels, and kernels that call them."""

from dataclasses import dataclass

from edgeqwen.simd.compile import (
    exact_kernel,
    inline_kernel,
    kernel,
    optional_token_method,
    token_method,
)
from edgeqwen.simd.ops import peek_f32, peek_u8, poke_f32, poke_i64, poke_u8
from edgeqwen.simd.token import Token


@inline_kernel
def mixed(address, i):  # type: ignore[no-untyped-def]
    if i < 4:
        return peek_u8(address + i) & 63
    return (peek_u8(address + i + 4) & 15) | ((peek_u8(address + i - 4) >> 6) << 4)


@kernel
def mix(source, target):  # type: ignore[no-untyped-def]
    for i in range(8):
        poke_u8(target + i, mixed(source, i))


@inline_kernel
def cancelled(x, y):  # type: ignore[no-untyped-def]
    """Returns x + y - x: y in real numbers, and what is left of it in float32."""
    return x + y - x


@kernel
def cancel(source, target):  # type: ignore[no-untyped-def]
    poke_f32(target, cancelled(peek_f32(source), peek_f32(source + 4)))


@exact_kernel
def cancel_exactly(source, target):  # type: ignore[no-untyped-def]
    poke_f32(target, cancelled(peek_f32(source), peek_f32(source + 4)))


@dataclass(frozen=True, slots=True)
class Plain(Token):
    """A token without methods."""

    @property
    def token_name(self) -> str:
        return "Plain"


@dataclass(frozen=True, slots=True)
class Doubling(Token):
    """A token that has a method of its own. What is compiled for one number serves no other."""

    number: int

    @property
    def token_name(self) -> str:
        return f"Doubling({self.number})"

    @staticmethod
    def changed(token, x):  # type: ignore[no-untyped-def]
        return x + x


@optional_token_method
def changed(token, x):  # type: ignore[no-untyped-def]
    """Returns what a token makes of a number: most of them, one more."""
    return x + 1


@kernel
def write_changed(token, target, x):  # type: ignore[no-untyped-def]
    poke_i64(target, changed(token, x))


@kernel
def write_changed_again(token, target, x):  # type: ignore[no-untyped-def]
    poke_i64(target, changed(token, changed(token, x)))


@token_method
def tripled(token, x):  # type: ignore[no-untyped-def]
    """No token has this one."""


@kernel
def write_tripled(token, target, x):  # type: ignore[no-untyped-def]
    poke_i64(target, tripled(token, x))
