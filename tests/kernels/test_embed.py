"""The embedding lookup: rows of tiles, in any order, as often as they are asked for."""

import numpy as np
import pytest

from edgeqwen.formats import FORMATS, Format
from edgeqwen.kernels.embed import EMBED, embed
from edgeqwen.simd.isa import Isa
from tests.formats.packing import blocks_of, dequantized, pack
from tests.isas import each_isa
from tests.kernels.running import run, step_state


@each_isa()
@pytest.mark.parametrize("format_", FORMATS.values(), ids=lambda f: f.name)
def test_rows_of_the_tokens(isa: Isa, format_: Format) -> None:
    rows = blocks_of(format_, 53, 3)
    tokens = np.array([52, 0, 15, 16, 17, 52, 31], np.int32)
    x = np.full((len(tokens) + 1, 96), 777, np.float32)
    arguments = {
        "state": step_state(len(tokens), tokens=tokens),
        "weights": pack(format_, rows),
        "n_blocks": 3,
        "x": x,
    }
    run(embed, format_.gemv_tiling(isa), EMBED, len(tokens), arguments)
    np.testing.assert_array_equal(x[:-1], dequantized(format_, rows)[tokens])
    assert (x[-1] == 777).all()
