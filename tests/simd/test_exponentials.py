"""exp and exp2: their error over the whole range, and what lies beyond it."""

import numpy as np

from edgeqwen.simd.isa import Isa
from tests.isas import ALL_ISAS, address, each_isa
from tests.simd import kernels

# As the operations promise; the largest errors found are 1.8e-7 and 1.6e-7.
EXP_ERROR, EXP2_ERROR = 3e-7, 2e-7
SMALLEST = np.finfo(np.float32).tiny


def exponentials(isa: Isa, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = np.zeros(-(-len(values) // 16) * 16, np.float32)
    x[: len(values)] = values
    out = np.zeros((2, len(x)), np.float32)
    kernels.exponentials(isa, address(x), address(out[0]), address(out[1]), len(x))
    return out[0, : len(values)], out[1, : len(values)]


def points(low: float, high: float) -> np.ndarray:
    """Dense points of a range, and those around whole and half powers of two."""
    steps = np.arange(2 * np.floor(low * 1.4427), 2 * high * 1.4427)
    near = np.concatenate([steps / 2, steps / 2 * np.log(2)]).astype(np.float32)
    near = np.concatenate([near, np.nextafter(near, np.float32(-1e9)), np.nextafter(near, 1e9)])
    dense = np.linspace(low, high, 1 << 19).astype(np.float32)
    return np.concatenate([dense, near[(near >= low) & (near <= high)].astype(np.float32)])


@each_isa(ALL_ISAS)
def test_exp(isa: Isa) -> None:
    x = points(-87.3, 88.3)
    exact = np.exp(x.astype(np.float64))
    error = np.abs(exponentials(isa, x)[0] / exact - 1)
    assert error.max() < EXP_ERROR, x[error.argmax()]


@each_isa(ALL_ISAS)
def test_exp2(isa: Isa) -> None:
    x = points(-126.0, 127.0)
    exact = np.exp2(x.astype(np.float64))
    error = np.abs(exponentials(isa, x)[1] / exact - 1)
    assert error.max() < EXP2_ERROR, x[error.argmax()]


@each_isa(ALL_ISAS)
def test_whole_powers_are_exact(isa: Isa) -> None:
    x = np.arange(-126, 128, dtype=np.float32)
    # In float64: NumPy's own exp2 of float32 is not exact on every CPU.
    exact = np.exp2(x.astype(np.float64))
    np.testing.assert_array_equal(exponentials(isa, x)[1], exact)
    assert exponentials(isa, np.zeros(1))[0] == 1


@each_isa(ALL_ISAS)
def test_far_below_the_range_is_zero(isa: Isa) -> None:
    below = np.array([-128, -150, -1e4, -1e30, -3.4e38, -np.inf], np.float32)
    for result in exponentials(isa, below):
        assert (result == 0).all()
    # Denormal results are as good as zero.
    for result in exponentials(isa, np.linspace(-130, -126.0001, 1000)):
        assert ((result >= 0) & (result <= SMALLEST)).all()


@each_isa(ALL_ISAS)
def test_exp_above_the_range_is_infinite(isa: Isa) -> None:
    """swiglu asks for exp(-gate), however large the gate."""
    above = np.array([88.8, 89, 100, 127, 128, 200, 1000, 1e9, 3.4e38, np.inf], np.float32)
    assert np.isposinf(exponentials(isa, above)[0]).all()
    # Up to there it is a little early, but never smaller than it was.
    x = np.linspace(87, 89, 4096).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    result = exponentials(isa, x)[0]
    assert (np.isinf(result) | (np.abs(result / exact - 1) < EXP_ERROR)).all()
    assert (np.diff(np.nan_to_num(result)) >= 0).all()


@each_isa(ALL_ISAS)
def test_nan_stays_nan(isa: Isa) -> None:
    nan = np.full(16, np.nan, np.float32)
    for result in exponentials(isa, nan):
        assert np.isnan(result).all()
