"""The embedding lookup: rows of tiles, in any order, as often as they are asked for."""

import numpy as np
import pytest

from edgeqwen.formats import F16, F32, FORMATS, Q4_0, Q4_K, Q6_K, Q8_0, Format
from edgeqwen.kernels.embed import EMBED, embed
from tests.formats.packing import dequantized, pack, weights_of
from tests.isas import NATIVE
from tests.kernels.running import run, step_state

# What models' embeddings come in, and a float. Unpacking itself is tested with the tiles.
USUAL = (F32, F16, Q4_0, Q8_0, Q4_K, Q6_K)
EACH = [
    pytest.param(f, id=f.name, marks=() if f in USUAL else pytest.mark.thorough)
    for f in FORMATS.values()
]


@pytest.mark.parametrize("format_", EACH)
def test_rows_of_the_tokens(format_: Format) -> None:
    rows = weights_of(format_, 53, 3)
    tokens = np.array([52, 0, 15, 16, 17, 52, 31], np.int32)
    n_blocks = 3 * format_.tile_blocks
    x = np.full((len(tokens) + 1, 32 * n_blocks), 777, np.float32)
    arguments = {
        "state": step_state(len(tokens), tokens=tokens),
        "weights": pack(format_, rows),
        "n_blocks": n_blocks,
        "x": x,
    }
    run(embed, format_.gemv_tiling(NATIVE), EMBED, len(tokens), arguments)
    np.testing.assert_array_equal(x[:-1], dequantized(format_, rows)[tokens])
    assert (x[-1] == 777).all()
