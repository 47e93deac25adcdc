"""Products with a screened format: the plain format's, bit for bit."""

import numpy as np
import pytest

from edgeqwen.formats import FORMATS
from edgeqwen.formats.screened import SCREENED, ScreenedFormat
from edgeqwen.simd.isa import Isa
from tests.isas import ALL_ISAS, NATIVE, TEST_ISAS, of_isa
from tests.kernels.test_products import Case, Product
from tests.random_blocks import FACTORS

CASES = [
    Case(40, panels=2, tokens=1, blocks=3, tiles_per_chunk=2, bias=True),
    Case(33, tokens=1, stretches=2, tiles_per_chunk=8, residual=True),
]
# Q6_K's kernels take long to compile.
EACH = [(isa, f) for f in SCREENED.values() for isa in (ALL_ISAS if f.groups == 1 else TEST_ISAS)]
each_case = pytest.mark.parametrize(("isa", "format_"), [of_isa(isa, f) for isa, f in EACH])


@each_case
@pytest.mark.parametrize("kind", ["gemv_tiling", "gemm_tiling"])
def test_the_same_bits_as_the_plain_format(isa: Isa, format_: ScreenedFormat, kind: str) -> None:
    plain, screened = (getattr(f, kind)(isa) for f in (FORMATS[format_.ggml_type], format_))
    for case in CASES:
        expected, found = Product(plain, case), Product(screened, case)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.run().view(np.uint32), expected.run().view(np.uint32))


@pytest.mark.parametrize("format_", SCREENED.values(), ids=lambda f: f.name)
@pytest.mark.parametrize("isa", [NATIVE, TEST_ISAS[1]], ids=lambda isa: isa.name)
def test_integer_sums_are_exact_at_the_extremes(isa: Isa, format_: ScreenedFormat) -> None:
    for weight_byte in (0x80, 0x7F, 0x00, 0xFF):
        run = Product(format_.gemv_tiling(isa), Case(16, blocks=1))
        run.rows[:] = weight_byte
        blocks = run.rows.reshape(16, -1, format_.tile_row_bytes)
        at = FACTORS[FORMATS[format_.ggml_type].name][0]
        blocks[:, :, at : at + 2] = np.array([1.0], np.float16).view(np.uint8)
        for signs in (np.ones(32), -np.ones(32), np.resize([1, 1, -1, -1], 32)):
            run.x[:] = np.resize(127 * signs, run.x.shape)
            exact, bound = run.expected()
            assert (np.abs(run.run() - exact) <= bound * (format_.tile_blocks > 1)).all()
