"""Converts some rows of a tensor from one type to another, in chunks that stay in the cache."""

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.checkpoint import SourceTensor
from edgeqwen.quant.decode import to_floats
from edgeqwen.quant.encode import encode, is_searched
from edgeqwen.quant.encode.schemes import SCHEMES
from edgeqwen.quant.errors import ErrorSums

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Weights that are converted at a time. Between these steps, threads wait for one another (the GIL):
# long ones let two threads work twice as fast as one. Formulas should find source and result in a
# core's second-level cache, or soon behind it; a search works on its weights for long.
_CHUNK_WEIGHTS = 1 << 18
_SEARCHED_WEIGHTS = 1 << 19


def convert_rows(
    tensor: SourceTensor,
    first_row: int,
    source: Bytes,
    type: GgmlType,
    importance: Floats | None = None,
    errors: ErrorSums | None = None,
) -> Bytes:
    """Converts whole rows, whose bytes in the tensor's type are ``source`` (uint8 [n]).

    Returns their bytes in the new type (uint8 [m]). ``first_row`` is where in the tensor they
    stand, for messages; ``importance``, float32 [columns], weighs errors; ``errors`` is told what
    they were and what they became. Raises FileFormatError if a weight is NaN or infinite,
    UnsupportedError if one is too large for the type. Most of it runs without the GIL.
    """
    columns = tensor.shape[-1]
    source_row = tensor.type.n_bytes((columns,))
    if tensor.type == type and type.block_size > 1:
        _check_scales(tensor, first_row, source.reshape(-1, source_row), type)
        if errors is not None:
            errors.add_copied(len(source) // source_row * columns)
        return source
    row_bytes = type.n_bytes((columns,))
    n_rows = len(source) // source_row
    together = _SEARCHED_WEIGHTS if is_searched(type, importance) else _CHUNK_WEIGHTS
    step = max(1, together // columns)
    scratch = np.empty(step * columns, np.float32)
    out = np.empty(n_rows * row_bytes, np.uint8)
    for row in range(0, n_rows, step):
        stop = min(row + step, n_rows)
        flat = to_floats(tensor.type, source[row * source_row : stop * source_row], scratch)
        weights, encoded = flat.reshape(-1, columns), out[row * row_bytes : stop * row_bytes]
        if not encode(type, weights, encoded, importance):
            raise unsound_rows(tensor, first_row + row, weights, type)
        if errors is not None:
            errors.add(first_row + row, weights, encoded, type, importance)
    return out


def _check_scales(tensor: SourceTensor, first_row: int, rows: Bytes, type: GgmlType) -> None:
    """Refuses blocks with a float16 scale that isn't finite."""
    factors = SCHEMES[type].factors if type in SCHEMES else (0,)  # Q8_0 begins with it
    for factor in factors:
        exponents = rows[:, factor + 1 :: type.type_size] & 0x7C
        bad = np.flatnonzero((exponents == 0x7C).any(axis=1))
        if len(bad):
            raise FileFormatError(
                f"{tensor.place}: row {first_row + bad[0]} holds NaN or infinite scales; the file "
                "is damaged"
            )


def unsound_rows(
    tensor: SourceTensor, first_row: int, rows: Floats, type: GgmlType
) -> FileFormatError | UnsupportedError:
    """Returns the error for rows that couldn't be encoded."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        count = int((~np.isfinite(rows[bad[0]])).sum())
        return FileFormatError(
            f"{tensor.place}: row {first_row + bad[0]} holds {count} weights that are NaN or "
            "infinite; the checkpoint is damaged"
        )
    out = np.empty(type.n_bytes((rows.shape[1],)), np.uint8)
    # Where rounding with importance or feedback went too far, none may be by itself.
    largest = int(np.abs(rows).max(axis=1).argmax())
    row = next((i for i, weights in enumerate(rows) if not encode(type, weights, out)), largest)
    return UnsupportedError(
        f"{tensor.place}: row {first_row + row} holds weights up to {np.abs(rows[row]).max():.4g}, "
        f"too large for {type.name}; choose bf16 or f32"
    )
