"""Weights to codes, where the scales are known: each to the nearest level."""

import numpy as np

from edgeqwen.simd.compile import exact_array_kernel


@exact_array_kernel
def round_to_codes(x, size, lowest, highest, scales, minima, codes):  # type: ignore[no-untyped-def]
    """float32 x [n] -> uint8 codes [n], level - lowest; the levels are whole numbers.

    ``scales`` and ``minima`` are float32 for each ``size`` weights: (x + minimum) / scale is
    rounded. A scale of 0 gives the code of level 0.
    """
    top = np.float32(highest - lowest)
    for group in range(scales.size):
        scale = scales[group]
        inverse = np.float32(1) / scale if scale != 0 else np.float32(0)
        # Rounds where it is cast, above 0.
        offset = minima[group] * inverse + np.float32(0.5 - lowest)
        for i in range(group * size, (group + 1) * size):
            place = min(max(x[i] * inverse + offset, np.float32(0)), top + np.float32(0.5))
            codes[i] = np.uint8(np.int32(place))


@exact_array_kernel
def look_up_codes(x, size, bounds, scales, codes):  # type: ignore[no-untyped-def]
    """float32 x [n] -> uint8 codes [n]: how many of the sorted bounds x / scale lies above."""
    n_bounds = bounds.size
    for group in range(scales.size):
        scale = scales[group]
        inverse = np.float32(1) / scale if scale != 0 else np.float32(0)
        for i in range(group * size, (group + 1) * size):
            place, code = x[i] * inverse, np.int32(0)
            for k in range(n_bounds):
                code += np.int32(place > bounds[k])
            codes[i] = np.uint8(code)
