"""Every kernel in plain numpy, from what its documentation says, in float64 where it computes.

Beside them, bounds on what float32 may lose: no test guesses a tolerance.
"""

from typing import Protocol

import numpy as np

from tests.oracles.blocks import quantize_int8

UNIT = 2.0**-24
"""The relative error of one rounding to float32."""


class PanelLike(Protocol):
    """What ``edgeqwen.formats.panel.Panel`` says of a panel."""

    n_tokens: int
    integers: bool
    groups: int
    scaled_sums: bool
    offset: int


def panels(x: np.ndarray, panel: PanelLike, *, unwritten: int = 0xFF) -> np.ndarray:
    """Returns panels of ``width = panel.n_tokens``: uint8 [n_panels][n_blocks][bytes of a block].

    x: float32 [n_tokens, n_columns]. With ``integers``, each block of 32 columns is int8
    [width][32], float32 scales [width] and, for each of ``groups`` equal groups of columns, the
    sums of the int8 [width]: float32, times the scale, if ``scaled_sums``; else int32, times
    ``offset`` and plus the bits of 1.5 * 2**23, unless the offset is 0. Otherwise it is float32
    [width][32]. The places of tokens past the end are bytes ``unwritten``.
    """
    width, offset = panel.n_tokens, panel.offset
    n_panels, n_blocks = -(-len(x) // width), x.shape[1] // 32
    padded = np.zeros((n_panels * width, n_blocks * 32), np.float32)
    padded[: len(x)] = x
    # [panel][block][token][32]
    blocks = padded.reshape(n_panels, width, n_blocks, 32).transpose(0, 2, 1, 3)
    parts = [blocks]
    if panel.integers:
        largest = np.abs(blocks).max(axis=-1, keepdims=True)
        q, _ = quantize_int8(np.where(largest < 1e-36, np.float32(0), blocks))
        q, scale = q.reshape(blocks.shape), largest / np.float32(127)
        parts = [q, scale]
        for group in np.split(q.astype(np.int32), panel.groups, axis=-1):
            sums = group.sum(axis=-1, dtype=np.int32, keepdims=True)
            with np.errstate(over="ignore"):
                scaled = scale * sums.astype(np.float32)
            start = np.float32(1.5 * 2**23).view(np.int32)
            parts.append(scaled if panel.scaled_sums else sums * np.int32(offset) + start)
    written = (np.arange(n_panels * width) < len(x)).reshape(n_panels, 1, width, 1)
    laid_out = []
    for i, part in enumerate(parts):
        seen = np.ascontiguousarray(part).view(np.uint8)
        kept = written if i < 2 or offset or panel.scaled_sums else False
        laid_out.append(np.where(kept, seen, np.uint8(unwritten)).reshape(n_panels, n_blocks, -1))
    return np.concatenate(laid_out, axis=-1)


def product(
    weights: np.ndarray,
    x: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    added_to: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns x @ weights.T + bias + added_to, float64 [n_tokens, n_rows], and an error bound.

    However the n terms of a sum are ordered, float32 loses at most n roundings of the sum of
    their magnitudes. The bias, the residual and the scales add a few.
    """
    w, x = weights.astype(np.float64), x.astype(np.float64)
    sums, magnitudes = x @ w.T, np.abs(x) @ np.abs(w).T
    for term in (bias, added_to):
        if term is not None:
            sums, magnitudes = sums + term, magnitudes + np.abs(term)
    return sums, (x.shape[1] + 6) * UNIT * magnitudes


def norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    """RMSNorm: x / sqrt(mean(x**2) + epsilon) * weight, float64."""
    x = x.astype(np.float64)
    root = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(epsilon))
    result: np.ndarray = x / root * weight
    return result


def swiglu(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """silu(gate) * up, float64."""
    gate = gate.astype(np.float64)
    with np.errstate(over="ignore"):
        result: np.ndarray = gate / (1 + np.exp(-gate)) * up
    return result


def sums_of_squares(x: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Adds the squares of each column, token by token, to the sums before: float64 [n_columns]."""
    sums = before.astype(np.float64)
    for token in x.astype(np.float64):
        sums = sums + token * token
    return sums


def angles(positions: np.ndarray, frequencies: np.ndarray, scale: float) -> np.ndarray:
    """Cosines, then sines, of float32 angles: float64 [n_tokens, head_dim]."""
    turned = positions.astype(np.float32)[:, None] * frequencies.astype(np.float32)
    exact = turned.astype(np.float64)
    return np.concatenate([np.cos(exact), np.sin(exact)], axis=1) * scale


def rotate(x: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Rotates [n_tokens, heads, head_dim] by ``angles``, element i against i + head_dim / 2."""
    left, right = np.split(x.astype(np.float64), 2, axis=-1)
    cosine, sine = np.split(turned.astype(np.float64)[:, None], 2, axis=-1)
    return np.concatenate([left * cosine - right * sine, right * cosine + left * sine], axis=-1)


def shifted(
    k: np.ndarray, v: np.ndarray, keep: int, n_dropped: int, frequencies: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Forgets positions [keep, keep + n_dropped) of keys and values [n_positions, heads, head_dim].

    What comes after them moves there; its keys, float64, turn back by n_dropped positions. The
    angle is exact.
    """
    angle = np.full((len(k) - keep - n_dropped, 1), -n_dropped) * frequencies.astype(np.float64)
    turned = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    moved = slice(keep + n_dropped, None)
    return (
        np.concatenate([k[:keep].astype(np.float64), rotate(k[moved], turned)]),
        np.concatenate([v[:keep], v[moved]]),
    )


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, n_past: int
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax attention in base 2 of scaled queries, float64, and an error bound.

    q: [n_tokens, n_heads, head_dim], times log2(e) / sqrt(head_dim); k, v: [n_positions,
    n_kv_heads, head_dim]. Token i sees positions up to n_past + i. Returns [n_tokens, n_heads,
    head_dim] twice.

    A score that is off by d changes its weight by the factor 2**d; the weights of n positions
    and their sum lose a rounding each, and the exponential 2e-7.
    """
    n_tokens, n_heads, head_dim = q.shape
    groups = n_heads // k.shape[1]
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    result, bound = np.zeros_like(q), np.zeros_like(q)
    for token in range(n_tokens):
        n = n_past + token + 1
        for head in range(n_heads):
            keys, values = k[:n, head // groups], v[:n, head // groups]
            scores = keys @ q[token, head]
            weights = np.exp2(scores - scores.max())
            weights /= weights.sum()
            result[token, head] = weights @ values
            # Also subtracting the largest score rounds.
            d = (head_dim + 2) * UNIT * (np.abs(keys) @ np.abs(q[token, head])).max()
            loss = 2 * (np.exp2(2 * d) - 1) + (2 * n + 8) * UNIT + 4e-7
            bound[token, head] = loss * (weights @ np.abs(values)) + 1e-30
    return result, bound


def plain_read(memory: np.ndarray, chunk_bytes: int, lanes: int) -> np.ndarray:
    """Returns the sums of each chunk's vectors, int32 [chunks, lanes], as int32 overflows.

    memory: uint8. What fills no vector at the end of a chunk isn't read.
    """
    chunks = [memory[i : i + chunk_bytes] for i in range(0, len(memory), chunk_bytes)]
    whole = [chunk[: len(chunk) // (4 * lanes) * 4 * lanes].view(np.int32) for chunk in chunks]
    return np.array([words.reshape(-1, lanes).sum(0, dtype=np.int32) for words in whole])


def repeated_products(left: np.ndarray, right: np.ndarray, n: int) -> np.ndarray:
    """Returns n times the products of a vector with each of some others: [others, lanes].

    Of bytes, [lanes, 4] and [others, lanes, 4], four are summed, exactly: int32. Of float32,
    [lanes] and [others, lanes], there is one: float64.
    """
    if left.dtype == np.uint8:
        products = left.astype(np.int64) * right.astype(np.int64)
        return (n * products.sum(-1)).astype(np.int32)
    return n * left.astype(np.float64) * right.astype(np.float64)
