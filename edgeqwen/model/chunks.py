"""How matrix products are cut into the chunks that threads take one after the other."""

from edgeqwen.formats.base import Tiling
from edgeqwen.kernels.gemm import most_tiles
from edgeqwen.model.weights import Matrix

# A product is cut into this many chunks a thread, so that a slow core delays no others.
CHUNKS_PER_THREAD = 8


def tiles_per_chunk(matrix: Matrix, tiling: Tiling, n_threads: int, *, ranges: int = 1) -> int:
    """Returns how many tiles a chunk of a product takes of each of a matrix's ranges."""
    tiles = max(1, matrix.n_tiles // (ranges * n_threads * CHUNKS_PER_THREAD))
    if tiling.n_tokens == 1:
        return tiles
    return min(tiles, max(1, most_tiles(tiling, matrix.n_blocks) // ranges))
