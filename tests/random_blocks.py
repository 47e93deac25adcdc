"""Rows of GGUF blocks with any integers in them, for types that ``gguf`` can't write itself."""

import gguf
import numpy as np

# Where a block holds float16 factors; all else in it is integers.
FACTORS: dict[str, tuple[int, ...]] = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "IQ2_XXS": (0,),
    "IQ2_XS": (0,),
    "IQ2_S": (0,),
    "IQ3_XXS": (0,),
    "IQ3_S": (0,),
    "IQ1_S": (0,),
    "IQ1_M": (),  # its bits are spread over the last 8 bytes
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}


def random_rows(name: str, n_rows: int, n_columns: int, *, std: float, seed: int) -> np.ndarray:
    """Returns uint8 [n_rows, row_bytes] of a type: finite weights of about this deviation."""
    kind = gguf.GGMLQuantizationType[name]
    block_size, type_size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(seed)
    shape = (n_rows, n_columns // block_size, type_size)
    blocks = rng.integers(0, 256, shape, dtype=np.uint8)
    _set_factors(name, blocks, rng.choice([-1.0, 1.0], (*shape[:2], 2)))
    largest = gguf.quants.dequantize(blocks.reshape(n_rows, -1), kind).std()
    factors = std / largest * rng.choice([-1.0, 1.0], (*shape[:2], 2)) * rng.uniform(0.7, 1.3)
    _set_factors(name, blocks, factors)
    return blocks.reshape(n_rows, -1)


def _set_factors(name: str, blocks: np.ndarray, factors: np.ndarray) -> None:
    """Sets the float16 factors of blocks [..., type_size] from [..., 2]."""
    bits = factors.astype(np.float16).view(np.uint16)
    if name == "IQ1_M":
        scales = blocks[..., 48:56].copy().view(np.uint16)
        for i in range(4):
            scales[..., i] = scales[..., i] & 0xFFF | (bits[..., 0] >> (4 * i) & 15) << 12
        blocks[..., 48:56] = scales.view(np.uint8)
    for i, at in enumerate(FACTORS[name]):
        blocks[..., at : at + 2] = bits[..., i : i + 1].copy().view(np.uint8)
