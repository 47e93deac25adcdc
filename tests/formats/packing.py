"""Packs blocks as a GGUF holds them, and reads tiles back through the code of the kernels."""

import gguf
import numpy as np

from edgeqwen.formats import Format
from edgeqwen.kernels.embed import EMBED, embed
from edgeqwen.kernels.state import STATE
from edgeqwen.simd.isa import Isa
from tests.formats import kernels
from tests.isas import address


def blocks_of(format_: Format, n_rows: int, n_blocks: int, seed: int = 0) -> np.ndarray:
    """Returns random bytes [n_rows, row_bytes]: every bit pattern of scales and weights."""
    size = (n_rows, n_blocks * format_.row_block_bytes)
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def quantized(format_: Format, weights: np.ndarray) -> np.ndarray:
    """Returns GGUF's bytes of a float32 matrix: uint8 [n_rows, row_bytes]."""
    kind = gguf.GGMLQuantizationType(format_.ggml_type)
    data: np.ndarray = gguf.quants.quantize(np.asarray(weights, np.float32), kind)
    return np.ascontiguousarray(data).view(np.uint8)


def dequantized(format_: Format, rows: np.ndarray) -> np.ndarray:
    """What gguf makes of the same bytes: float32 [n_rows, n_columns]."""
    kind = gguf.GGMLQuantizationType(format_.ggml_type)
    if format_.name in ("F32", "F16"):  # which gguf takes as numpy's own types
        rows = rows.view({"F32": np.float32, "F16": np.float16}[format_.name])
    with np.errstate(all="ignore"):
        found: np.ndarray = gguf.quants.dequantize(rows, kind)
    return found


def pack(format_: Format, rows: np.ndarray, *, last_tile: int | None = None) -> np.ndarray:
    """Returns tiles uint8 [n_tiles, n_blocks, tile_bytes]; those not packed hold 0xEE."""
    n_rows, row_bytes = rows.shape
    n_blocks = row_bytes // format_.row_block_bytes
    n_tiles = -(-n_rows // 16)
    tiles = np.full((n_tiles, n_blocks, format_.tile_bytes), 0xEE, np.uint8)
    last = n_tiles if last_tile is None else last_tile
    format_.pack(address(rows), n_rows, row_bytes, address(tiles), n_blocks, 0, last)
    return tiles


def unpack(format_: Format, isa: Isa, tiles: np.ndarray) -> np.ndarray:
    """Returns float32 [16 * n_tiles, n_columns], row by row, as the embedding lookup does."""
    n_tiles, n_blocks, _ = tiles.shape
    tokens = np.arange(16 * n_tiles, dtype=np.int32)
    state, args = np.zeros(1, STATE), np.zeros(1, EMBED)
    x = np.full((len(tokens), 32 * n_blocks), np.nan, np.float32)
    state["n_tokens"], state["tokens"] = len(tokens), address(tokens)
    args["state"], args["n_blocks"] = address(state), n_blocks
    args["weights"], args["x"] = address(tiles), address(x)
    for i in range(len(tokens)):
        embed(format_.gemv_tiling(isa), address(args), i, 0)
    return x


def unpack_tiles(format_: Format, isa: Isa, tiles: np.ndarray) -> np.ndarray:
    """The same, tile by tile."""
    n_tiles, n_blocks, tile_bytes = tiles.shape
    out = np.zeros((n_tiles, n_blocks, 32, 16), np.float32)
    tiling = format_.gemv_tiling(isa)
    kernels.tiles_to_float(tiling, address(tiles), tile_bytes, address(out), n_tiles * n_blocks)
    return out.transpose(0, 3, 1, 2).reshape(16 * n_tiles, 32 * n_blocks)
