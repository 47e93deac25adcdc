"""The two runtimes behind one small face: append tokens, forget tokens, nothing else."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

NAMES = ("edgeqwen", "llama.cpp")


class Runtime(Protocol):
    """One loaded model with one sequence of tokens; logits of the last token are computed."""

    @property
    def n_tokens(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    def append(self, tokens: Sequence[int]) -> None: ...
    def truncate(self, n_tokens: int) -> None: ...
    def close(self) -> None: ...


def open_runtime(
    name: str,
    path: Path,
    *,
    n_threads: int,
    n_context: int,
    load: Mapping[str, Any] | None = None,
) -> Runtime:
    """Imports a runtime (one of NAMES), and only that one, and loads the file with it.

    ``load``: what ``edgeqwen.load`` is told besides.
    """
    if name == "edgeqwen":
        return _Edgeqwen(path, n_threads, n_context, **(load or {}))
    if name == "llama.cpp":
        return _LlamaCpp(path, n_threads, n_context)
    raise ValueError(f"{name!r} is not one of the runtimes {', '.join(NAMES)}")


class _Edgeqwen:
    def __init__(self, path: Path, n_threads: int, n_context: int, **load: Any) -> None:
        import edgeqwen

        # The whole of a load, tokenizer included, as the other runtime does it.
        self._model = edgeqwen.load(path, n_threads=n_threads, max_context=n_context, **load)
        self._engine = self._model.engine
        self._sequence = self._engine.new_sequence()
        self._wanted = wanted_logits(self._model)

    @property
    def n_tokens(self) -> int:
        return self._sequence.n_tokens

    @property
    def vocab_size(self) -> int:
        return self._model.config.vocab_size

    def work(self) -> dict[str, int]:
        """Returns what a token costs: the fields of ``edgeqwen.model.work.Work``."""
        return asdict(self._engine.work)

    def append(self, tokens: Sequence[int]) -> None:
        if len(tokens) == 1:
            self._engine.decode(self._sequence, tokens[0], *self._wanted)
        else:
            self._engine.prefill(self._sequence, tokens)

    def truncate(self, n_tokens: int) -> None:
        self._sequence.truncate(n_tokens)

    def close(self) -> None:
        self._sequence.close()
        self._model.close()


def wanted_logits(model: Any) -> tuple[Any, ...]:
    """Returns what a step is told besides its token: which logits the model's sampling looks at.

    Nothing where this edgeqwen computes all of them in any case.
    """
    if "wanted" not in inspect.signature(model.engine.decode).parameters:
        return ()
    from edgeqwen.sampling import Sampler

    sampler: Any = Sampler(model.sampling, model.config.vocab_size)
    return (sampler.wanted,)


class _LlamaCpp:
    def __init__(self, path: Path, n_threads: int, n_context: int) -> None:
        from benchmarks.llama import LlamaCpp

        self._model = LlamaCpp(path, n_threads=n_threads, n_context=n_context, repack=True)

    @property
    def n_tokens(self) -> int:
        return self._model.n_tokens

    @property
    def vocab_size(self) -> int:
        return self._model.vocab_size

    def append(self, tokens: Sequence[int]) -> None:
        self._model.decode(tokens)

    def truncate(self, n_tokens: int) -> None:
        self._model.truncate(n_tokens)

    def close(self) -> None:
        self._model.close()
