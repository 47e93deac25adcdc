"""The types of the KV cache in plain numpy: what they keep of numbers, and where it lies."""

import numpy as np

from tests.oracles.blocks import round_f16

CODES = {"q8_0": (-127, 127), "q4_0": (-8, 7)}


def quantize(x: np.ndarray, cache_type: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns float16 scales [...] and int8 codes [..., 32] of float32 [..., 32]."""
    lowest, highest = CODES[cache_type]
    x = x.astype(np.float32)
    with np.errstate(all="ignore"):
        if lowest == -highest:
            scales = np.abs(x).max(-1) / np.float32(highest)
        else:
            top, bottom = x.max(-1), x.min(-1)
            scales = np.where(top > -bottom, top, bottom) / np.float32(lowest)
        # Zero times infinity is NaN.
        scales = (scales + (x * np.float32(0)).sum(-1)).astype(np.float16)
        wide = scales.astype(np.float32)
        inverse = np.where(np.isnan(wide) | (wide == 0), np.float32(0), np.float32(1) / wide)
        codes = np.rint(x * inverse[..., None])
    codes = np.where(np.isnan(codes), lowest, np.clip(codes, lowest, highest))
    return scales, codes.astype(np.int8)


def bf16(x: np.ndarray) -> np.ndarray:
    """Returns the bits of bfloat16, uint16: rounded to nearest even, NaN stays NaN."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(x), bits >> 16 | 0x40, rounded).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def held(x: np.ndarray, cache_type: str) -> np.ndarray:
    """Returns what the cache holds of float32 [..., head_dim], as float32."""
    if cache_type == "f32":
        return x.astype(np.float32)
    if cache_type == "bf16":
        return from_bf16(bf16(x))
    with np.errstate(all="ignore"):
        if cache_type == "f16":
            return round_f16(x).astype(np.float32)
        scales, codes = quantize(x.reshape(*x.shape[:-1], -1, 32), cache_type)
        return (scales.astype(np.float32)[..., None] * codes).reshape(x.shape)


def largest_errors(x: np.ndarray, cache_type: str) -> np.ndarray:
    """Returns by how much ``held`` may differ from finite x [..., head_dim]."""
    if cache_type in ("f32", "f16", "bf16"):
        return {"f32": 0, "f16": 2.0**-11, "bf16": 2.0**-8}[cache_type] * np.abs(x) * 1.001
    largest = np.abs(x.reshape(*x.shape[:-1], -1, 32)).max(-1)
    # The scale is rounded, and of 4-bit codes 8 is missing.
    step = largest / 127 / 2 if cache_type == "q8_0" else largest / 8
    return np.repeat(step * (1 + 2.0**-9), 32, axis=-1) + 2.0**-18


def encode(x: np.ndarray, cache_type: str, *, is_value: bool) -> np.ndarray:
    """Lays float32 [n_positions, head_dim] of one KV head out as the cache does: uint8, flat.

    Blocks of 32 dimensions of some positions: K of 32, [dimensions][positions]; V of 64,
    [positions][dimensions]. Codes of 4 bits: dimensions d and d + 16 of the 32 in one byte.
    """
    n, head_dim = x.shape
    positions = 64 if is_value else 32
    # [tile][block][position][dimension]
    tiles = x.reshape(n // positions, positions, head_dim // 32, 32).transpose(0, 2, 1, 3)
    parts = []
    if cache_type in CODES:
        scales, codes = quantize(tiles, cache_type)
        parts.append(scales)
        if cache_type == "q4_0":
            codes = codes[..., :16] & 15 | codes[..., 16:] << 4
    else:
        with np.errstate(over="ignore"):
            kinds = {"f32": np.float32, "f16": np.float16}
            codes = bf16(tiles) if cache_type == "bf16" else tiles.astype(kinds[cache_type])
    parts.append(codes if is_value else codes.swapaxes(-1, -2))
    flat = [np.ascontiguousarray(p).view(np.uint8).reshape(*tiles.shape[:2], -1) for p in parts]
    return np.concatenate(flat, -1).reshape(-1)


def decode(memory: np.ndarray, cache_type: str, head_dim: int, *, is_value: bool) -> np.ndarray:
    """Reads what ``encode`` lays out back: float32 [n_positions, head_dim]."""
    positions, n_blocks = (64 if is_value else 32), head_dim // 32
    row_bytes = {"f32": 128, "q8_0": 32, "q4_0": 16}.get(cache_type, 64)
    scale_bytes = 2 if cache_type in CODES else 0
    tiles = memory.reshape(-1, n_blocks, positions * (row_bytes + scale_bytes))
    kinds = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}
    codes = np.ascontiguousarray(tiles[..., positions * scale_bytes :]).view(
        kinds.get(cache_type, np.int8)
    )
    row = codes.shape[-1] // positions
    shape = (positions, row) if is_value else (row, positions)
    x = codes.reshape(*tiles.shape[:2], *shape)
    x = x if is_value else x.swapaxes(-1, -2)
    if cache_type == "bf16":
        x = from_bf16(x)
    if cache_type == "q4_0":
        x = np.concatenate([(x << 4).astype(np.int8) >> 4, x >> 4], -1)
    x = x.astype(np.float32)
    if scale_bytes:
        scales = np.ascontiguousarray(tiles[..., : 2 * positions]).view(np.float16)
        with np.errstate(all="ignore"):
            x = x * scales.astype(np.float32)[..., None]
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(-1, head_dim)
