"""Biases of keys that are kept apart of the cache: what they add to the scores.

For a query q and a pair of dimensions i, h = i + head_dim / 2, the bias b, turned as at position p,
gives q R_p b = A cos(p f) + B sin(p f), where f is the pair's frequency, A = q_i b_i + q_h b_h and
B = q_h b_i - q_i b_h. So a tile of 32 positions needs two more steps of its product for each pair:
A times the cosines of its positions, B times their sines. These lie ready, turned by the very
angles that keys were turned by: *rotations* [positions / 32][rows][cosine, sine][32], float32, in
segments of 256 positions.
"""

from edgeqwen.kernels.attention_products import head_dim, n_rows
from edgeqwen.simd.compile import inline_kernel
from edgeqwen.simd.ops import peek_f32, peek_i32, poke_f32

ROTATION_BYTES = 4 * 2 * 32
"""Of a pair of dimensions and 32 positions."""

HEADER = 2
"""Integers before the pairs of a head."""


@inline_kernel
def bias_factors(attention, q, pairs, biases, factors):  # type: ignore[no-untyped-def]
    """Computes A and B of each pair and row: factors float32 [rows][head_dim].

    q float32 [rows][head_dim], rotated and scaled; biases float32 [head_dim]. pairs int32: how many
    there are, the bytes of 32 positions' rotations, then of each pair where its rotations are among
    these, and its dimension i.
    """
    width, half = 4 * head_dim(attention), 2 * head_dim(attention)
    for pair in range(peek_i32(pairs)):
        i = 4 * peek_i32(pairs + 8 * pair + 4 * HEADER + 4)
        b, c = peek_f32(biases + i), peek_f32(biases + half + i)
        for r in range(n_rows(attention)):
            x, y = peek_f32(q + r * width + i), peek_f32(q + r * width + half + i)
            poke_f32(factors + r * width + 8 * pair, x * b + y * c)
            poke_f32(factors + r * width + 8 * pair + 4, y * b - x * c)
