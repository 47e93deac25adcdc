"""The runtimes behind one face: what edgeqwen's is told, and what it tells."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.runtimes import open_runtime, wanted_logits
from edgeqwen import sampling
from tests.engines import open_engine, write_model


def test_appending_and_forgetting(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", types="Q4_0")
    runtime: Any = open_runtime("edgeqwen", path, n_threads=1, n_context=64)
    runtime.append([1, 2, 3])
    runtime.append([4])
    assert runtime.n_tokens == 4
    runtime.truncate(2)
    assert runtime.n_tokens == 2
    with open_engine(path, max_context=64) as engine:
        assert runtime.work() == asdict(engine.work)
    runtime.close()


def test_more_for_load(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf")
    runtime: Any = open_runtime(
        "edgeqwen", path, n_threads=1, n_context=64, load={"cache_type": "f32"}
    )
    assert runtime.work()["cache_bytes"] == 2 * 2 * 64 * 4
    runtime.close()
    with pytest.raises(TypeError, match="senseless"):
        open_runtime("edgeqwen", path, n_threads=1, n_context=64, load={"senseless": 1})


def test_an_unknown_runtime() -> None:
    with pytest.raises(ValueError, match=r"'abacus' is not one of the runtimes edgeqwen, llama"):
        open_runtime("abacus", Path("m.gguf"), n_threads=1, n_context=64)


def test_a_step_is_told_which_logits_are_wanted_where_it_takes_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def decode(sequence: Any, token: int) -> None: ...
    def decode_some(sequence: Any, token: int, wanted: Any = None) -> None: ...

    model = SimpleNamespace(
        sampling="greedy",
        config=SimpleNamespace(vocab_size=9),
        engine=SimpleNamespace(decode=decode),
    )
    assert wanted_logits(model) == ()
    model.engine.decode = decode_some

    def sampler(options: Any, vocab_size: int) -> Any:
        return SimpleNamespace(wanted=(options, vocab_size))

    monkeypatch.setattr(sampling, "Sampler", sampler)
    assert wanted_logits(model) == (("greedy", 9),)
