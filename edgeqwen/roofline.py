"""How near to the machine's limits a model runs: to the speed of memory, and of multiplication.

One token's step reads every weight once, so reading memory bounds it; the products of a prompt's
tokens share each weight, so the speed of multiplication bounds them. ``Limits`` measures both by
kernels that do nothing else, with as many threads as the model has and shared out in the same way;
``roofline`` says which share of them a model's speeds are.
"""

import time
from collections.abc import Mapping
from statistics import median
from types import TracebackType
from typing import Any, Self

import numpy as np

from edgeqwen.cache.region import Region
from edgeqwen.executor import Tape, Team
from edgeqwen.kernels.peak import GROUPS, MULTIPLY, Peak, multiply
from edgeqwen.kernels.plain_read import PLAIN_READ, plain_read
from edgeqwen.model.weights import physical_memory
from edgeqwen.model.work import Work
from edgeqwen.simd.isa import Isa, current_isa

READ_BYTES = 1 << 30
"""Memory that is read in order: far more than caches hold. At most an eighth of the machine's."""

READ_CHUNK_BYTES = 4 << 20
# The peaks: chunks for each thread, and steps of a chunk, which take some 0.2 ms.
CHUNKS_PER_THREAD = 64
STEPS = {"integer": 8_000, "float": 64_000}
# Threads that worked before may still be looking for more work, and take time from others.
_SETTLE_S = 0.05


class Limits:
    """What ``n_threads`` threads reach together, as medians over the calls of ``measure``.

    ``read_bytes_per_s``: plain reads of memory. ``integer_macs_per_s``: multiply-accumulates of
    int8 that are in registers already, by the instructions with which the instruction set
    multiplies 4-bit weights; ``float_macs_per_s``: the same of float32.

    Takes ``read_bytes`` of memory, by default READ_BYTES, until it is closed. Raises OptionError
    for a number of threads that no team can have.
    """

    def __init__(self, n_threads: int, *, read_bytes: int | None = None) -> None:
        self.isa = current_isa()
        self.n_threads = n_threads
        self._team = Team(n_threads)
        n_bytes = min(READ_BYTES if read_bytes is None else read_bytes, physical_memory() // 8)
        self._region = Region(n_bytes, purpose="measuring the speed of memory", huge=True)
        # Pages that nobody has written would all be one, in the first-level cache.
        self._region.view(0, n_bytes)[:] = 1
        read, self._kept = _record_read(self.isa, self._region.address, n_bytes)
        self._tapes = {"read_bytes_per_s": (read, n_bytes)}
        for kind in ("integer", "float"):
            tape, macs, kept = _record_products(self.isa, kind, n_threads)
            self._tapes[f"{kind}_macs_per_s"] = tape, macs
            self._kept += kept
        self.samples: dict[str, list[float]] = {name: [] for name in self._tapes}
        for tape, _ in self._tapes.values():
            self._team.run(tape, 1, 1)

    def measure(self) -> None:
        """Adds a sample of each, which takes a quarter of a second or so."""
        time.sleep(_SETTLE_S)
        for name, (tape, amount) in self._tapes.items():
            began = time.perf_counter()
            self._team.run(tape, 1, 1)
            self.samples[name].append(amount / (time.perf_counter() - began))

    def figures(self) -> dict[str, float]:
        """Returns the medians by name; needs a sample."""
        return {name: median(samples) for name, samples in self.samples.items()}

    def close(self) -> None:
        """Ends the threads and frees the memory; idempotent."""
        self._team.close()
        self._region.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def roofline(
    work: Work, limits: Mapping[str, float], speeds: Mapping[str, Any], *, depth: int
) -> dict[str, Any]:
    """Returns which share of the limits speeds are, for ``decode`` and ``prefill``.

    ``limits`` are ``Limits.figures()``. ``speeds`` has ``n_generate`` tokens that were generated
    one by one behind ``depth`` others with ``decode_tps`` tokens/s, and ``n_prompt`` that were read
    behind as many with ``prefill_tps``; a phase whose speed is None is left out.

    ``decode``: ``weight_bytes`` and ``cache_bytes`` that a token reads, on average, ``bytes_per_s``
    and their ``share`` of the speed of memory. ``prefill``: ``integer_macs``, ``float_macs`` of a
    token's matrix products and ``attention_macs`` of its attention; ``macs_per_s`` of the products;
    ``share``, the time that these would take at the limits over the time that the token took, and
    ``share_with_attention``, the same with attention's products, which are float32.
    """
    found: dict[str, Any] = {}
    if speeds["decode_tps"] is not None:
        n_bytes = work.weight_bytes + _positions(depth, speeds["n_generate"]) * work.cache_bytes
        rate = n_bytes * speeds["decode_tps"]
        found["decode"] = {
            "weight_bytes": work.weight_bytes,
            "cache_bytes": n_bytes - work.weight_bytes,
            "bytes_per_s": rate,
            "share": rate / limits["read_bytes_per_s"],
        }
    if speeds["prefill_tps"] is not None:
        attention = _positions(depth, speeds["n_prompt"]) * work.attention_macs
        products_s = (
            work.integer_macs / limits["integer_macs_per_s"]
            + work.float_macs / limits["float_macs_per_s"]
        )
        attention_s = attention / limits["float_macs_per_s"]
        found["prefill"] = {
            "integer_macs": work.integer_macs,
            "float_macs": work.float_macs,
            "attention_macs": attention,
            "macs_per_s": (work.integer_macs + work.float_macs) * speeds["prefill_tps"],
            "share": products_s * speeds["prefill_tps"],
            "share_with_attention": (products_s + attention_s) * speeds["prefill_tps"],
        }
    return found


def _positions(depth: int, n: int) -> float:
    """Returns how many positions n tokens behind ``depth`` others see on average, their own too."""
    return depth + (n + 1) / 2


def _record_read(isa: Isa, memory: int, n_bytes: int) -> tuple[Tape, list[Any]]:
    """Records a read of all the memory; returns the tape and what must live as long."""
    n_chunks = -(-n_bytes // READ_CHUNK_BYTES)
    sums = np.zeros((n_chunks, isa.lanes), np.int32)
    arguments = {
        "memory": memory,
        "n_bytes": n_bytes,
        "chunk_bytes": READ_CHUNK_BYTES,
        "sums": sums.ctypes.data,
    }
    tape = Tape()
    tape.add(plain_read, isa, PLAIN_READ, arguments, chunks=n_chunks)
    tape.finish()
    return tape, [sums]


def _record_products(isa: Isa, kind: str, n_threads: int) -> tuple[Tape, int, list[Any]]:
    """Records products in registers.

    Returns the tape, its multiply-accumulates, and what must live as long.
    """
    peak, n_chunks = Peak(isa, integers=kind == "integer"), CHUNKS_PER_THREAD * n_threads
    n_left, n_right = 2 * GROUPS, peak.n_right
    left: np.ndarray[Any, Any]
    if peak.integers:
        left = np.ones((n_left, peak.vector_bytes), np.uint8)
        right = np.ones((n_right, peak.vector_bytes), np.int8)
    else:
        left = np.full((n_left, isa.lanes), 1e-3, np.float32)
        right = np.full((n_right, isa.lanes), 1e-3, np.float32)
    sums = np.zeros((n_chunks, peak.n_sums, isa.lanes), np.int32 if peak.integers else np.float32)
    arguments = {
        "n_steps": STEPS[kind],
        "left": left.ctypes.data,
        "right": right.ctypes.data,
        "sums": sums.ctypes.data,
    }
    tape = Tape()
    tape.add(multiply, peak, MULTIPLY, arguments, chunks=n_chunks)
    tape.finish()
    return tape, STEPS[kind] * n_chunks * peak.macs, [left, right, sums]
