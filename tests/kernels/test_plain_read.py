"""The plain read: every whole vector of every chunk is added up, and nothing beyond."""

import numpy as np
import pytest

from edgeqwen.kernels.plain_read import PLAIN_READ, plain_read
from edgeqwen.simd.isa import Isa
from tests.isas import each_isa
from tests.kernels.running import run
from tests.oracles import kernels as oracle


@each_isa()
@pytest.mark.parametrize("n_bytes", [4096, 4096 + 1600, 100_000, 64])
def test_the_sums_are_the_twins(isa: Isa, n_bytes: int) -> None:
    # What lies behind the memory would be seen in the sums.
    memory = np.random.default_rng(1).integers(0, 256, n_bytes + 64, np.uint8)
    n_chunks = -(-n_bytes // 4096)
    sums = np.zeros((n_chunks, isa.lanes), np.int32)
    arguments = {"memory": memory, "n_bytes": n_bytes, "chunk_bytes": 4096, "sums": sums}
    run(plain_read, isa, PLAIN_READ, n_chunks, arguments)
    assert (sums == oracle.plain_read(memory[:n_bytes], 4096, isa.lanes)).all()
