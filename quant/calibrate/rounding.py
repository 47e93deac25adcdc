"""Rounds rows of a matrix with feedback: each column's error moves into those behind it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.calibrate.statistics import Part
from edgeqwen.quant.encode import importance_of_errors
from edgeqwen.quant.encode.feedback import round_with_feedback
from edgeqwen.quant.encode.fitting import fit
from edgeqwen.quant.encode.schemes import Scheme

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Columns whose errors are moved one by one; those behind get them together, as a matrix product.
_SLAB = 256


def round_rows(
    scheme: Scheme, weights: Floats, parts: Sequence[Part]
) -> tuple[Bytes, Floats] | None:
    """Rounds float32 [rows][columns], the columns of parts that lie side by side.

    Returns the blocks' bytes, uint8 [rows][blocks][bytes of a block], and the weights that they
    mean, float32 [rows][columns]; None where a weight isn't finite, or too large for the type.
    """
    n_rows, columns = weights.shape
    block = scheme.type.block_size
    out = np.empty((n_rows, columns // block, scheme.type.type_size), np.uint8)
    rounded = np.empty_like(weights)
    before = parts[0].first
    for part in parts:
        source = weights[:, part.first - before : part.stop - before]
        target = source + source @ part.drift
        for first in range(0, part.stop - part.first, _SLAB):
            stop = min(first + _SLAB, part.stop - part.first)
            at, end = part.first - before + first, part.first - before + stop
            errors = _round_slab(
                scheme,
                target[:, first:stop].copy(),
                part.factor[first:stop, first:stop].copy(),
                out[:, at // block : end // block],
                rounded[:, at:end],
            )
            if errors is None:
                return None
            target[:, stop:] -= errors @ part.factor[first:stop, stop:]
    return out, rounded


def _round_slab(
    scheme: Scheme, x: Floats, factor: Floats, out: Bytes, rounded: Floats
) -> Floats | None:
    """Rounds a slab of columns, block by block; returns the errors for the columns behind it.

    ``x``, float32 [rows][n], is changed; ``out`` and ``rounded`` get what ``round_rows`` returns.
    """
    n_rows, n = x.shape
    block = scheme.type.block_size
    codes, errors = np.empty((n_rows, n), np.uint8), np.empty((n_rows, n), np.float32)
    book = np.array(scheme.codebook, np.float32)
    # What an error in a column costs when the columns behind it have made up for what they can.
    cost = (1 / np.diag(factor) ** 2).astype(np.float32)
    for first in range(0, n, block):
        stop = first + block
        importance = np.tile(importance_of_errors(cost[first:stop]), n_rows)
        found = fit(scheme, x[:, first:stop].reshape(-1), importance)
        if found is None:
            return None
        scales = found.scales.reshape(n_rows, -1)
        minima = np.zeros_like(scales) if found.minima is None else found.minima
        minima = minima.reshape(n_rows, -1)
        levels = scheme.size, scheme.lowest, scheme.highest, book
        round_with_feedback(x, factor, first, stop, *levels, scales, minima, codes, rounded, errors)
        scheme.write(found, codes[:, first:stop], out[:, first // block])
    return errors
