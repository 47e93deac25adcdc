"""A kernel that unpacks whole tiles."""

from edgeqwen.kernels.embed import dequantize_block
from edgeqwen.kernels.products import (
    apart_block_bytes,
    apart_tile_bytes,
    block_bytes,
    header_bytes,
    tile_blocks,
    tile_bytes,
)
from edgeqwen.simd.compile import exact_kernel


@exact_kernel
def tiles_to_float(tiling, tiles, out, n):  # type: ignore[no-untyped-def]
    """out: float32 [n][blocks of a tile][32 columns][16 rows]."""
    for i in range(n):
        tile = tiles + i * tile_bytes(tiling)
        for k in range(tile_blocks(tiling)):
            block = tile + header_bytes(tiling) + k * block_bytes(tiling)
            apart = tiles - (i + 1) * apart_tile_bytes(tiling) + k * apart_block_bytes(tiling)
            dequantize_block(tiling, tile, block, apart, out)
            out += 2048
