"""Rounds with feedback: each column's error is made up for by the columns that follow."""

import numpy as np

from edgeqwen.simd.compile import exact_array_kernel


@exact_array_kernel
def round_with_feedback(  # type: ignore[no-untyped-def]
    x, factor, first, last, size, lowest, highest, book, scales, minima, codes, rounded, errors
):
    """Rounds columns [first, last) of x and moves their errors into the columns behind.

    x: float32 [rows][n], changed; ``factor``: float32 [n][n], the upper Cholesky factor of the
    inverse Hessian. ``scales`` and ``minima``: float32 [rows][(last - first) / size]. ``book``:
    the levels of a codebook, or empty for the whole numbers from ``lowest`` to ``highest``.
    ``codes``, uint8 [rows][n], ``rounded`` and ``errors``, float32 [rows][n], get what was chosen,
    what it means, and the error over the factor's diagonal.
    """
    n = x.shape[1]
    for row in range(x.shape[0]):
        for column in range(first, last):
            group = (column - first) // size
            scale, low = scales[row, group], minima[row, group]
            value = x[row, column]
            place = (value + low) / scale if scale != 0 else np.float32(0)
            if book.size:
                code = 0
                for k in range(book.size - 1):
                    code += int(place > (book[k] + book[k + 1]) * np.float32(0.5))
                level = book[code]
            else:
                level = np.rint(min(max(place, np.float32(lowest)), np.float32(highest)))
                code = int(level) - lowest
            codes[row, column] = np.uint8(code)
            rounded[row, column] = scale * level - low
            error = (value - rounded[row, column]) / factor[column, column]
            errors[row, column] = error
            for k in range(column + 1, n):
                x[row, k] -= error * factor[column, k]
