"""Prompts that were read before, by whatever process: found, and kept for the next."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeqwen.cache.store import WORTH_FINDING, WORTH_KEEPING, MemoryStore
from edgeqwen.folders import user_prefixes

if TYPE_CHECKING:
    from edgeqwen.cache import Sequence as KvSequence
    from edgeqwen.cache.prefix_store import PrefixStore
    from edgeqwen.cache.session_format import Identity
    from edgeqwen.engine import Engine
    from edgeqwen.gguf_file import GgufFile

DEFAULT_PREFIX_BYTES = 4 << 30


def kept_prompts() -> list[tuple[Path, int, float]]:
    """Returns what is kept of prompts, of all models: path, bytes, time of the last use."""
    from edgeqwen.cache.prefix_store import stored_prefixes

    return stored_prefixes(user_prefixes())


def forget_prompts() -> tuple[int, int]:
    """Deletes what is kept of prompts; returns how many and how many bytes that were."""
    from edgeqwen.cache.prefix_store import clear_prefixes

    return clear_prefixes(user_prefixes())


class Reuse:
    """The prompts of one model in the cache folder, which may take so many bytes; 0: none."""

    def __init__(self, engine: "Engine", file: "GgufFile", limit_bytes: int) -> None:
        self._engine, self._file, self._limit_bytes = engine, file, limit_bytes
        self._made: PrefixStore | None = None

    def find(self, prompt: Sequence[int], n_known: int) -> MemoryStore | None:
        """Returns a beginning of the prompt that needn't be read, if that saves much.

        It leaves one token at least. ``n_known``: tokens that are there anyway.
        """
        if len(prompt) - n_known <= WORTH_FINDING or not self._limit_bytes:
            return None
        return self._store.find(prompt, n_known)

    def keep(self, sequence: "KvSequence", n_prompt: int, n_reused: int) -> None:
        """Keeps a prompt that was read, if reading it took long: ``sequence`` begins with it."""
        n = min(n_prompt, sequence.n_in_order)
        if n - n_reused >= WORTH_KEEPING and self._limit_bytes:
            self._store.keep(sequence.copied(n))

    def wait(self) -> None:
        """Returns when all that was kept is on the disk."""
        if self._made is not None:
            self._made.wait()

    @property
    def _store(self) -> "PrefixStore":
        # Late: most prompts are short, and what it imports takes as long as reading them.
        if self._made is None:
            from edgeqwen.cache.fingerprint import is_known
            from edgeqwen.cache.prefix_store import PrefixStore
            from edgeqwen.sessions import identity_of
            from edgeqwen.simd.cache import kernels_digest

            @functools.cache
            def identity() -> "Identity":
                return identity_of(self._engine, self._file)

            known = functools.partial(is_known, self._file)
            # Other kernels, and those of other instruction sets, may sum in another order.
            computed_by = f"{self._engine.isa.name} {kernels_digest('edgeqwen.kernels')}"
            self._made = PrefixStore(
                user_prefixes(), identity, known, self._limit_bytes, computed_by
            )
        return self._made
