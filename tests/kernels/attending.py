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
from tests.kernels.attention_cases import Heads
from tests.kernels.kv_memory import KvMemory
from tests.kernels.running import bits, run, step_state
from tests.kernels.test_panels import same
from tests.oracles import kernels as twins

GUARD = 777.0


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
        self.memory = KvMemory(n_kv, size, heads.cache_type, n, garbage=garbage)
        self.k, self.v = self.memory.fill(k, v)
        n_heads = n_kv * heads.group
        # Wider than the queries: keys and values stand beside them.
        self.q = np.full((n_tokens, (n_heads + 2 * n_kv) * size), np.nan, np.float32)
        self.queries = rng.standard_normal((n_tokens, n_heads, size)).astype(np.float32)
        self.queries *= np.float32(np.log2(np.e))

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
        return {
            "state": step_state(len(queries), n_past, segments=self.memory.address),
            "q": q,
            "stride": q.strides[0],
            "angles": np.repeat(np.array([1, 0], np.float32), size // 2),
            "q_scale": bits(1.0),
            **self.memory.arguments(),
            "n_kv_heads": n_kv,
            "scratch": np.full(2 * worker_bytes, 0xFF, np.uint8),  # two workers'
            "scratch_bytes": worker_bytes,
            "partials": np.full(n_units * n_kv * rows * (size + 2), np.nan, np.float32),
            "output": output,
            "panels": 0,
        }
