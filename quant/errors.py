"""TensorErrors: how far what was written lies from the weights, measured tensor by tensor."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeqwen.ggml_types import GgmlType

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

HISTOGRAM_EDGES = tuple(2.0 ** (i / 2) for i in range(-32, 5))
"""Where the bins of ``TensorErrors.histogram`` meet, as parts of the tensor's RMS: 2**-16 to 4."""

# What is decoded at a time, as much as the converter encodes at a time.
_CHUNK_WEIGHTS = 1 << 16
# A block of types that have none, for the sake of the worst one.
_PLAIN_BLOCK = 32

# The RMS is known only in the end. Until then, errors are counted in bins of their own size, by
# the upper bits of a float32: 16 bins for each power of two, all of the finite numbers.
_FINE_SHIFT = 19
_N_FINE = 0x7F800000 >> _FINE_SHIFT
_FINE_MIDDLES = (
    (np.arange(_N_FINE, dtype=np.uint32) << _FINE_SHIFT | 1 << (_FINE_SHIFT - 1))
    .view(np.float32)
    .astype(np.float64)
)


@dataclass(frozen=True, slots=True)
class WorstBlock:
    """The block of a tensor with the largest error; ``column`` is its first.

    ``rmse`` is over its weights, ``relative_rmse`` a part of the RMS of all weights of the tensor.
    A block is the type's own; in types without blocks it is 32 columns.
    """

    row: int
    column: int
    rmse: float
    relative_rmse: float


@dataclass(frozen=True, slots=True)
class TensorErrors:
    """What writing a tensor in another type has changed; ``n`` weights, padding included.

    ``rms`` is of the weights, ``rmse`` and ``max_error`` are of what was written less the weights,
    and ``relative_rmse`` is rmse / rms. ``weighted_relative_rmse`` weighs the squares of both by
    the importance of their column, where that is known. ``cosine`` is that of the angle between
    the weights and what was written. ``worst`` is None where nothing has changed.
    ``histogram`` counts |error| / rms between HISTOGRAM_EDGES, below the first of them (no error
    too) and above the last; a bin's edges are true to 3 per cent. For blocks that were copied,
    ``rms`` is None: nobody has looked at the weights.
    """

    n: int
    rms: float | None
    rmse: float
    relative_rmse: float
    weighted_relative_rmse: float | None
    cosine: float
    max_error: float
    worst: WorstBlock | None
    histogram: tuple[int, ...]


class ErrorSums:
    """Sums over rows of a tensor, from which its errors follow.

    Sums over parts of a tensor may be made by any thread; merging them in the order of the rows
    gives the same figures on any number of threads. All sums are float64.
    """

    def __init__(self) -> None:
        self._n = 0
        self._copied = False
        self._weights = 0.0  # sums of squares, as is _errors
        self._errors = 0.0
        self._products = 0.0  # of a weight and its error
        self._weighted_weights = 0.0
        self._weighted_errors = 0.0
        self._max = 0.0
        self._worst: tuple[float, int, int, int] | None = None  # its sum, size, row and column
        self._fine: Counts = np.zeros(_N_FINE, np.int64)

    def add(
        self,
        first_row: int,
        weights: Floats,
        encoded: Bytes,
        type: GgmlType,
        importance: Floats | None = None,
    ) -> None:
        """Adds whole rows: what they were and the bytes that they became.

        ``weights`` is finite float32 [rows, columns], ``encoded`` uint8 of as many weights in
        ``type``, of any shape; both contiguous. ``first_row`` is where in the tensor they stand.
        ``importance``, float32 [columns], is for the weighted error.
        """
        # Here and not above: it imports numba, which importing reports doesn't need.
        from edgeqwen.quant.decode import to_floats

        n_rows, columns = weights.shape
        row_bytes = type.n_bytes((columns,))
        rows = encoded.reshape(n_rows, row_bytes)
        step = max(1, _CHUNK_WEIGHTS // columns)
        scratch = np.empty(min(step, n_rows) * columns, np.float32)
        for row in range(0, n_rows, step):
            part = weights[row : row + step]
            written = to_floats(type, rows[row : row + step].reshape(-1), scratch)
            block = type.block_size
            self._add_chunk(first_row + row, part, written.reshape(part.shape), block, importance)

    def add_copied(self, n_weights: int) -> None:
        """Adds weights whose bytes were taken as they are."""
        self._n += n_weights
        self._copied = True
        self._fine[0] += n_weights

    def merge(self, later: "ErrorSums") -> None:
        """Adds the sums over the rows that follow."""
        self._n += later._n
        self._copied |= later._copied
        self._weights += later._weights
        self._errors += later._errors
        self._products += later._products
        self._weighted_weights += later._weighted_weights
        self._weighted_errors += later._weighted_errors
        self._max = max(self._max, later._max)
        self._fine += later._fine
        if later._worst is not None:
            self._offer(*later._worst)

    def result(self) -> TensorErrors:
        """Returns the errors of all rows that were added."""
        n = max(self._n, 1)
        rms, rmse = math.sqrt(self._weights / n), math.sqrt(self._errors / n)
        worst = None
        if self._worst is not None:
            total, size, row, column = self._worst
            block_rmse = math.sqrt(total / size)
            worst = WorstBlock(row, column, block_rmse, _ratio(block_rmse, rms))
        weighted = None
        if self._weighted_weights > 0:
            weighted = math.sqrt(self._weighted_errors / self._weighted_weights)
        return TensorErrors(
            n=self._n,
            rms=None if self._copied else rms,
            rmse=rmse,
            relative_rmse=_ratio(rmse, rms),
            weighted_relative_rmse=weighted,
            cosine=self._cosine(),
            max_error=self._max,
            worst=worst,
            histogram=self._histogram(rms),
        )

    def _add_chunk(
        self,
        first_row: int,
        weights: Floats,
        written: Floats,
        block_size: int,
        importance: Floats | None,
    ) -> None:
        columns = weights.shape[1]
        block = block_size if block_size > 1 else math.gcd(columns, _PLAIN_BLOCK)
        wide, errors = weights.astype(np.float64), written.astype(np.float64)
        errors -= wide
        blocks = errors.reshape(-1, block)
        # Of the products of numpy, einsum's come out the same on any number of BLAS threads.
        block_errors = np.einsum("ij,ij->i", blocks, blocks)
        self._n += weights.size
        self._errors += float(block_errors.sum())
        self._weights += _product(wide, wide)
        self._products += _product(wide, errors)
        sizes = np.abs(errors).reshape(-1)
        self._max = max(self._max, float(sizes.max()))
        fine = (sizes.astype(np.float32).view(np.uint32) >> np.uint32(_FINE_SHIFT)).astype(np.int64)
        self._fine += np.bincount(fine, minlength=_N_FINE)
        worst = int(block_errors.argmax())
        row, place = divmod(worst, columns // block)
        self._offer(float(block_errors[worst]), block, first_row + row, place * block)
        if importance is not None:
            self._weighted_weights += _weighted(wide, importance)
            self._weighted_errors += _weighted(errors, importance)

    def _offer(self, total: float, size: int, row: int, column: int) -> None:
        """Takes a block as the worst if it is worse than all before it."""
        if total > (self._worst[0] if self._worst is not None else 0.0):
            self._worst = (total, size, row, column)

    def _cosine(self) -> float:
        """Returns the cosine of the angle between what was and what is; 1 if both are zero."""
        if not self._errors:
            return 1.0
        product = self._weights + self._products
        written = self._weights + 2 * self._products + self._errors
        length = math.sqrt(self._weights) * math.sqrt(max(written, 0.0))
        return max(-1.0, min(1.0, product / length)) if length else 0.0

    def _histogram(self, rms: float) -> tuple[int, ...]:
        """Returns the counts for errors as parts of the RMS."""
        with np.errstate(divide="ignore"):
            middles = _FINE_MIDDLES / rms
        bins = np.searchsorted(HISTOGRAM_EDGES, middles, side="right")
        bins[0] = 0  # no error, or one of the smallest numbers there are
        counts = np.zeros(len(HISTOGRAM_EDGES) + 1, np.int64)
        np.add.at(counts, bins, self._fine)
        return tuple(counts.tolist())


def _product(a: Doubles, b: Doubles) -> float:
    return float(np.einsum("ij,ij->i", a, b).sum())


def _weighted(values: Doubles, importance: Floats) -> float:
    """Returns the sum of squares, each weighed by the importance of its column."""
    squares = np.einsum("ij,ij->j", values, values)
    return float((squares * importance.astype(np.float64)).sum())


def _ratio(part: float, whole: float) -> float:
    if part == 0:
        return 0.0
    return part / whole if whole > 0 else math.inf
