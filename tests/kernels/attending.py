"""Runs attention on given queries, keys and values, in both of its ways."""

from typing import Any

import numpy as np

from edgeqwen.formats import Q4_0
from edgeqwen.kernels.attention import (
    ATTENTION,
    UNIT,
    Merging,
    attention_many,
    attention_merge,
    attention_one,
    scratch_bytes,
)
from edgeqwen.kernels.attention_types import SEGMENT
from edgeqwen.kernels.key_biases import HEADER, ROTATION_BYTES
from tests.isas import address
from tests.kernels.attention_cases import Heads
from tests.kernels.kv_memory import KvMemory
from tests.kernels.running import bits, run, step_state
from tests.kernels.test_panels import same
from tests.oracles import kernels as twins

GUARD = 777.0


class KeyBiases:
    """Biases of keys that are kept apart: of the first head two pairs, of the second every other.

    ``of_heads`` float32 [n_kv_heads][head_dim]; ``turned`` [n_positions][n_kv_heads][head_dim]:
    what they add to the keys. Before each pair's rotations lie some that nobody should read.
    """

    def __init__(self, n_kv_heads: int, head_dim: int, n_positions: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        half = head_dim // 2
        self.of_heads = np.zeros((n_kv_heads, head_dim), np.float32)
        self.pairs = np.zeros((n_kv_heads, HEADER + head_dim), np.int32)
        n_segments = -(-n_positions // SEGMENT)
        frequencies = (1e4 ** (-np.arange(half) / half)).astype(np.float32)
        turned = twins.angles(np.arange(n_segments * SEGMENT), frequencies, 1).astype(np.float32)
        # [segment][tile][pair, garbage before each][cosine, sine][position]
        self.rotations = np.full((n_segments, 8, 2 * half, 2, 32), np.nan, np.float32)
        self.rotations[:, :, 1::2] = turned.reshape(n_segments, 8, 32, 2, half).transpose(
            0, 1, 4, 3, 2
        )
        self.table = address(self.rotations) + self.rotations.strides[0] * np.arange(n_segments)
        for head in range(n_kv_heads):
            chosen = [(1, half - 2), range(0, half, 2), ()][head]
            for place, i in enumerate(chosen):
                self.of_heads[head, [i, i + half]] = rng.normal(0, 10, 2)
                self.pairs[head, HEADER + 2 * place :][:2] = (2 * i + 1) * ROTATION_BYTES, i
            self.pairs[head, :HEADER] = len(chosen), 2 * half * ROTATION_BYTES
        keys = np.repeat(self.of_heads[None], n_positions, axis=0)
        self.turned = twins.rotate(keys, turned[:n_positions])


class Attending:
    """Some tokens' queries over a cache that holds their own positions and those before."""

    def __init__(
        self,
        heads: Heads,
        n_past: int,
        n_tokens: int,
        *,
        key_norm: float = 8.0,
        garbage: float = np.nan,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.heads, self.n_past, self.n_tokens = heads, n_past, n_tokens
        n_kv, size = heads.n_kv_heads, heads.head_dim
        n = n_past + n_tokens
        k, v = (rng.standard_normal((n, n_kv, size)).astype(np.float32) for _ in "kv")
        # A shared direction, as the biases of keys give it, and a scale that makes scores differ.
        k += rng.standard_normal((1, n_kv, size)).astype(np.float32)
        k *= np.float32(key_norm / np.sqrt(2 * size))
        self.biases = KeyBiases(n_kv, size, n, seed) if heads.keeps_biases_apart else None
        if self.biases is not None:
            # So that what is kept apart is all of these elements, and subtracting it is exact.
            k[:, self.biases.of_heads != 0] = 0
        self.memory = KvMemory(n_kv, size, heads.cache_type, n, garbage=garbage)
        self.fill(k, v)
        n_heads = n_kv * heads.group
        # Wider than the queries: keys and values stand beside them.
        self.q = np.full((n_tokens, (n_heads + 2 * n_kv) * size), np.nan, np.float32)
        self.queries = rng.standard_normal((n_tokens, n_heads, size)).astype(np.float32)
        self.queries *= np.float32(np.log2(np.e))

    def fill(self, k: np.ndarray, v: np.ndarray) -> None:
        """Puts keys, but for their biases, and values into the cache.

        ``stored`` is what it then holds of the keys; ``k`` are the keys with their biases.
        """
        self.stored, self.v = self.memory.fill(k, v)
        self.k = self.stored if self.biases is None else self.stored + self.biases.turned

    def many(self) -> np.ndarray:
        """Returns [n_tokens, n_heads, head_dim] as a step of many tokens computes it."""
        shape = self.heads.shape(one_token=False)
        n_chunks = self.heads.n_kv_heads * -(-self.n_tokens // shape.tokens)
        output = self._output(self.n_tokens)
        arguments = self._arguments(self.n_past, self.queries, output, shape.padded_rows)
        run(attention_many, shape, ATTENTION, n_chunks, arguments)
        assert (output[-1] == GUARD).all()
        return output[:-1]

    def one(self, token: int) -> np.ndarray:
        """Returns [n_heads, head_dim] as a step of this one token computes it.

        Angles of zero rotate nothing. The token's key and value aren't in the cache before.
        """
        shape, n_kv = self.heads.shape(one_token=True), self.heads.n_kv_heads
        n_past = self.n_past + token
        output = self._output(1)
        queries = self.queries[token : token + 1]
        arguments = self._arguments(n_past, queries, output, shape.padded_rows)
        new = [self.memory.tiles(head, which)[n_past] for which in range(2) for head in range(n_kv)]
        if self.biases is not None:
            new[:n_kv] = [k + b for k, b in zip(new, self.biases.of_heads, strict=False)]
        arguments["q"][0, queries.size :] = np.concatenate(new)
        before = self.memory.forget(n_past)
        panel = Q4_0.gemv_tiling(shape.isa).panel
        arguments["panels"] = panels = np.zeros((1, output[0].size // 32, panel.block_bytes), "u1")
        n_units = -(-(n_past + 1) // UNIT)
        run(attention_one, shape, ATTENTION, n_kv * n_units, arguments)
        run(attention_merge, Merging(shape, panel), ATTENTION, len(output[0]), arguments)
        assert (output[-1] == GUARD).all()
        np.testing.assert_array_equal(self.memory.memory, before)
        if np.isfinite(output).all():
            same(panels, twins.panels(output[:1].reshape(1, -1), panel, unwritten=0), panel)
        found: np.ndarray = output[0]
        return found

    def _output(self, n_tokens: int) -> np.ndarray:
        n_heads = self.heads.n_kv_heads * self.heads.group
        return np.full((n_tokens + 1, n_heads, self.heads.head_dim), GUARD, np.float32)

    def _arguments(
        self, n_past: int, queries: np.ndarray, output: np.ndarray, rows: int
    ) -> dict[str, Any]:
        n_kv, size = self.heads.n_kv_heads, self.heads.head_dim
        q = self.q[: len(queries)].copy()
        q[:, : queries[0].size] = queries.reshape(len(queries), -1)
        worker_bytes = scratch_bytes(rows, size)
        n_units = -(-(n_past + 1) // UNIT)
        biases, pairs, rotations = 0, 0, 0
        if self.biases is not None:
            biases, pairs = self.biases.of_heads, self.biases.pairs
            rotations = address(self.biases.table)
        segments = self.memory.address
        return {
            "state": step_state(len(queries), n_past, segments=segments, rotations=rotations),
            "q": q,
            "stride": q.strides[0],
            "angles": np.repeat(np.array([1, 0], np.float32), size // 2),
            "q_scale": bits(1.0),
            **self.memory.arguments(),
            "n_kv_heads": n_kv,
            "biases": biases,
            "pairs": pairs,
            "scratch": np.full(2 * worker_bytes, 0xFF, np.uint8),  # two workers'
            "scratch_bytes": worker_bytes,
            "partials": np.full(n_units * n_kv * rows * (size + 2), np.nan, np.float32),
            "output": output,
            "panels": 0,
        }
