"""2**x and e**x on vectors: argument reduction and a polynomial, without a table or a branch."""

import functools
from typing import Any

import numpy as np

from edgeqwen.simd.emitter import Emitter, Value


def _fit(f: Any, degree: int, half_range: float) -> list[float]:
    """Fits a polynomial with f(0) exact, weighted for relative error, on Chebyshev nodes."""
    x = np.cos((2 * np.arange(200) + 1) * np.pi / 400) * half_range
    powers = np.stack([x**i for i in range(1, degree + 1)], 1) / f(x)[:, None]
    fitted = np.linalg.lstsq(powers, (f(x) - 1) / f(x), rcond=None)[0]
    return [1.0, *(float(c) for c in fitted)]


@functools.cache
def exp2_polynomial() -> list[float]:
    """Returns coefficients for 2**x on [-0.5, 0.5], the constant first: relative error 2e-7."""
    return _fit(np.exp2, 5, 0.5)


# log2(e) in two parts, the first of 15 bits, so that the reduction of x loses nothing.
LOG2E = float(np.log2(np.e))
LOG2E_HIGH = 1.442138671875


def exp2(e: Emitter, x: Value) -> Value:
    """2**x for x <= 127; relative error below 2e-7; 0 below -127, NaN for NaN."""
    x = e.max(e.f32(-127.0), x)
    n = e.unary("rint", x)
    return _scaled_polynomial(e, n, e.b.fsub(x, n))


def exp(e: Emitter, x: Value) -> Value:
    """e**x; relative error below 3e-7; 0 below -88, infinity above 88.4, NaN for NaN."""
    x = e.max(e.f32(-104.0), x)
    x = e.b.select(e.b.fcmp_ordered(">", x, e.f32(89.0)), e.f32(89.0), x)
    n = e.unary("rint", e.b.fmul(x, e.f32(LOG2E)))
    f = e.fma(x, e.f32(LOG2E - LOG2E_HIGH), e.fma(x, e.f32(LOG2E_HIGH), e.b.fneg(n)))
    return _scaled_polynomial(e, n, f)


def _scaled_polynomial(e: Emitter, n: Value, f: Value) -> Value:
    """2**n * 2**f for whole n <= 128 and f in [-0.5, 0.5]; 0 for n < -126."""
    *lower, highest = exp2_polynomial()
    y = e.f32(highest)
    for c in reversed(lower):
        y = e.fma(y, f, e.f32(c))
    # As an exponent field, -127 is the float 0.0 and 128 infinity. NaN, which no integer holds,
    # becomes -127 here; y is NaN then, and so is the product.
    n = e.max(n, e.f32(-127.0))
    exponent = e.b.add(e.b.fptosi(n, e.i32v), e.constant(127, e.i32v))
    power = e.b.shl(exponent, e.constant(23, e.i32v))
    return e.b.fmul(y, e.b.bitcast(power, e.f32v))
