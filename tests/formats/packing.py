"""Packs blocks as a GGUF holds them, and reads tiles back through the code of the kernels."""

import gguf
import numpy as np

from edgeqwen.formats import FORMATS, Format, packing
from edgeqwen.ggml_types import GgmlType
from edgeqwen.kernels.embed import EMBED, embed
from edgeqwen.kernels.state import STATE
from edgeqwen.simd.isa import Isa
from tests.formats import kernels
from tests.isas import NATIVE, TEST_ISAS, address
from tests.random_blocks import random_rows

PLAIN_ISAS = [isa for isa in TEST_ISAS if isa is not NATIVE]


def formats_on(isa: Isa) -> list[Format]:
    """Returns all formats for the CPU's own instruction set; plain code of each width takes turns.

    Every format is so compiled for the CPU and for plain code.
    """
    found = list(FORMATS.values())
    return found if isa is NATIVE else found[PLAIN_ISAS.index(isa) :: len(PLAIN_ISAS)]


def blocks_of(format_: Format, n_rows: int, row_tiles: int, seed: int = 0) -> np.ndarray:
    """Returns random bytes [n_rows, row_bytes]: every bit pattern of scales and weights."""
    size = (n_rows, row_tiles * format_.tile_row_bytes)
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def weights_of(format_: Format, n_rows: int, row_tiles: int, seed: int = 0) -> np.ndarray:
    """Returns rows of blocks like a model's: any integers, with small factors of either sign."""
    n_columns = row_tiles * format_.tile_columns
    if format_.integer_activations:
        return random_rows(plain_format(format_), n_rows, n_columns, std=0.05, seed=seed)
    kind = gguf.GGMLQuantizationType(format_.ggml_type)
    weights = np.random.default_rng(seed).standard_normal((n_rows, n_columns))
    data: np.ndarray = gguf.quants.quantize(weights.astype(np.float32), kind)
    return np.ascontiguousarray(data).view(np.uint8)


def plain_format(format_: Format) -> str:
    """Returns the name of the type that the file has, also for a screened format."""
    return GgmlType(format_.ggml_type).name


def dequantized(format_: Format, rows: np.ndarray) -> np.ndarray:
    """What gguf makes of the same bytes: float32 [n_rows, n_columns]."""
    kind = gguf.GGMLQuantizationType(format_.ggml_type)
    if format_.name in ("F32", "F16"):  # which gguf takes as numpy's own types
        rows = rows.view({"F32": np.float32, "F16": np.float16}[format_.name])
    with np.errstate(all="ignore"):
        found: np.ndarray = gguf.quants.dequantize(rows, kind)
    return found


def pack(format_: Format, rows: np.ndarray, *, last_tile: int | None = None) -> np.ndarray:
    """Returns tiles uint8 [n_tiles, row_tiles, tile_bytes]; those not packed hold 0xEE.

    What the format keeps apart lies before them in memory.
    """
    n_rows, row_bytes = rows.shape
    row_tiles = row_bytes // format_.tile_row_bytes
    n_tiles = -(-n_rows // 16)
    apart = n_tiles * row_tiles * format_.apart_tile_bytes
    memory = np.full(apart + n_tiles * row_tiles * format_.tile_bytes, 0xEE, np.uint8)
    tiles = memory[apart:].reshape(n_tiles, row_tiles, format_.tile_bytes)
    pack_range(format_, rows, tiles, 0, n_tiles if last_tile is None else last_tile)
    return tiles


def pack_range(
    format_: Format,
    rows: np.ndarray,
    tiles: np.ndarray,
    first: int,
    last: int,
    *,
    stop: bool = False,
) -> int:
    """Packs some rows of tiles by one job; returns the bytes that the kernel counts."""
    jobs = packing.pack_jobs(format_, rows.reshape(-1), len(rows), address(tiles))[:1]
    flags, table = np.array([0, stop], np.int64), format_.table()
    jobs["first"], jobs["last"] = first, last
    arguments = np.zeros(1, packing.PACK)
    arguments["jobs"], arguments["done"] = address(jobs), address(flags)
    arguments["stop"] = address(flags[1:])
    arguments["table"] = 0 if table is None else address(table)
    packing.pack_tiles(format_, address(arguments), 0, 0)
    return int(flags[0])


def unpack(format_: Format, isa: Isa, tiles: np.ndarray) -> np.ndarray:
    """Returns float32 [16 * n_tiles, n_columns], row by row, as the embedding lookup does."""
    n_tiles, row_tiles, _ = tiles.shape
    n_blocks = row_tiles * format_.tile_blocks
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
    n_tiles, row_tiles, _ = tiles.shape
    out = np.zeros((n_tiles, row_tiles * format_.tile_blocks, 32, 16), np.float32)
    tiling = format_.gemv_tiling(isa)
    kernels.tiles_to_float(tiling, address(tiles), address(out), n_tiles * row_tiles)
    return out.transpose(0, 3, 1, 2).reshape(16 * n_tiles, row_tiles * format_.tile_columns)
