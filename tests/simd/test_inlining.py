"""Functions that are written into kernels keep their meaning, whatever LLVM makes of addresses."""

import numpy as np

from tests.isas import address
from tests.simd.inlining import mix


def test_a_branching_function_of_addresses_in_a_loop() -> None:
    source = np.random.default_rng(0).integers(0, 256, 12, dtype=np.uint8)
    target = np.zeros(8, np.uint8)
    mix(address(source), address(target))
    expected = [*(source[:4] & 63), *((source[8:] & 15) | (source[:4] >> 6) << 4)]
    assert target.tolist() == expected
