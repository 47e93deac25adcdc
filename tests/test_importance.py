"""Importance matrices: against the twin's activations, and the same however they are collected."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeqwen
from edgeqwen.errors import ClosedError, EdgeqwenError, OptionError
from edgeqwen.importance import CONTEXT, SO_FAR_WINDOWS, collect
from edgeqwen.model.steps import PREFILL_TOKENS
from edgeqwen.quant.imatrix import Imatrix
from tests.engines import F32_CACHE, open_engine, oracle, random_tokens, tensors, write_model

# Two windows with a step and a half each, and a rest that is left out.
WINDOW = PREFILL_TOKENS + 40
TOKENS = random_tokens(2 * WINDOW + 7)
MIXED = {
    "blk.0.attn_q": "Q4_0",
    "blk.0.attn_k": "Q8_0",
    "blk.1.attn_q": "F16",
    "blk.0.ffn_up": "Q4_0",
    "blk.1.ffn_down": "Q8_0",
    "output": "Q8_0",
}
# float32 against float64, through two layers; and what int8 changes of what comes after it.
FLOAT_ERROR, INT8_ERROR = 1e-5, 2e-2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("importance")


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    return write_model(folder / "f32.gguf", tied=False, **F32_CACHE)


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[edgeqwen.Model]:
    with edgeqwen.load(path, n_threads=2, cache_type="f32") as model:
        yield model


def twin_sums(path: Path, tokens: list[int], window: int) -> dict[str, np.ndarray]:
    """Returns float64 [columns] by tensor name: sums over whole windows, each read anew."""
    sums: dict[str, np.ndarray] = {}
    for begin in range(0, len(tokens) - window + 1, window):
        seen: dict[str, np.ndarray] = {}
        oracle(path, cache_type="f32").logits(tokens[begin : begin + window], seen)
        for key, x in seen.items():
            if key.endswith(".input"):
                name = key.removesuffix("input") + "weight"
                sums[name] = sums.get(name, 0) + (x**2).sum(axis=0)
    return sums


def matrices(n_layers: int = 2) -> set[str]:
    kinds = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    return {f"blk.{i}.{kind}.weight" for i in range(n_layers) for kind in kinds}


def same(found: Imatrix, expected: Imatrix) -> None:
    assert found.entries.keys() == expected.entries.keys()
    for name, entry in expected.entries.items():
        assert found.entries[name].count == entry.count
        np.testing.assert_array_equal(found.entries[name].in_sum2, entry.in_sum2)


@pytest.mark.parametrize(
    ("types", "error"),
    [("F32", FLOAT_ERROR), ("Q8_0", INT8_ERROR), (MIXED, INT8_ERROR)],
    ids=["F32", "Q8_0", "mixed"],
)
def test_against_the_twin(folder: Path, types: Any, error: float) -> None:
    path = write_model(folder / "tiny.gguf", types=types, tied=False, **F32_CACHE)
    expected = twin_sums(path, TOKENS, WINDOW)
    with edgeqwen.load(path, n_threads=2, cache_type="f32") as model:
        found = collect(model, TOKENS, context=WINDOW, output=True, dataset="a text")
    assert set(found.entries) == expected.keys() == matrices() | {"output.weight"}
    for name, entry in found.entries.items():
        assert entry.in_sum2.dtype == np.float32
        assert entry.count == 2 * WINDOW
        np.testing.assert_allclose(entry.in_sum2, expected[name], rtol=error, err_msg=name)
        mean = found.importance(name)
        np.testing.assert_allclose(mean, expected[name] / (2 * WINDOW), rtol=error)
    assert (found.chunk_count, found.chunk_size, found.datasets) == (2, WINDOW, ("a text",))
    assert found.n_tokens == 2 * WINDOW


def test_small_activations_beside_large_ones_count(folder: Path) -> None:
    """In a block's int8 they vanish, for all of a block share the scale of its largest."""
    norm = tensors(**F32_CACHE)["blk.0.attn_norm.weight"]
    norm[:32] = 1e-4
    norm[5] = 100
    path = write_model(
        folder / "outlier.gguf", types="Q8_0", tensors={"blk.0.attn_norm.weight": norm}, **F32_CACHE
    )
    expected = twin_sums(path, TOKENS[:50], 50)["blk.0.attn_q.weight"]
    with edgeqwen.load(path, n_threads=1) as model:
        found = collect(model, TOKENS[:50], context=50).entries["blk.0.attn_q.weight"].in_sum2
    assert found.min() > 0
    np.testing.assert_allclose(found, expected, rtol=FLOAT_ERROR)


def test_threads_change_no_bit(path: Path, model: edgeqwen.Model) -> None:
    expected = collect(model, TOKENS, context=WINDOW, output=True)
    for n_threads in (1, 3):
        with edgeqwen.load(path, n_threads=n_threads, cache_type="f32") as other:
            same(collect(other, TOKENS, context=WINDOW, output=True), expected)


def test_what_ran_before_changes_no_bit(path: Path, model: edgeqwen.Model) -> None:
    """Slots of panels and rows of buffers that a longer step has left behind don't count."""
    collect(model, TOKENS)
    found = collect(model, TOKENS[:5], context=5)
    with edgeqwen.load(path, n_threads=2, cache_type="f32") as fresh:
        same(found, collect(fresh, TOKENS[:5], context=5))


def test_windows_are_read_anew(model: edgeqwen.Model) -> None:
    parts = [collect(model, TOKENS[i : i + 60], context=60) for i in (0, 60)]
    whole = collect(model, TOKENS[:120], context=60)
    for name, entry in whole.entries.items():
        merged = parts[1].merged(parts[:1]).entries[name]
        np.testing.assert_allclose(merged.in_sum2, entry.in_sum2, rtol=3e-7)
        assert merged.count == entry.count == 120
    # Also a window whose last step has a single token.
    single = collect(model, TOKENS, context=PREFILL_TOKENS + 1, max_windows=1)
    longer = collect(model, TOKENS, context=PREFILL_TOKENS, max_windows=1)
    assert single.n_tokens == longer.n_tokens + 1
    for name, entry in single.entries.items():
        assert (entry.in_sum2 >= longer.entries[name].in_sum2).all()
        assert (entry.in_sum2 > longer.entries[name].in_sum2).any()


def test_the_output_is_left_out_unless_asked_for(folder: Path, model: edgeqwen.Model) -> None:
    assert set(collect(model, TOKENS[:9], context=9).entries) == matrices()
    path = write_model(folder / "tied.gguf", **F32_CACHE)
    with edgeqwen.load(path, n_threads=1) as tied:
        assert set(collect(tied, TOKENS[:9], context=9, output=True).entries) == matrices()


def test_the_window_is_512_or_the_model_s_context(folder: Path, model: edgeqwen.Model) -> None:
    tokens = random_tokens(CONTEXT + 1)
    assert collect(model, tokens).chunk_size == CONTEXT == 512
    with edgeqwen.load(
        write_model(folder / "short.gguf", n_layers=1, max_context=33, **F32_CACHE), n_threads=1
    ) as short:
        found = collect(short, tokens, max_windows=3)
    assert (found.chunk_size, found.chunk_count, found.n_tokens) == (33, 3, 99)


def test_progress_and_what_was_collected_so_far(model: edgeqwen.Model) -> None:
    seen: list[tuple[int, int]] = []
    kept: list[Imatrix] = []
    n_windows = 2 * SO_FAR_WINDOWS + 1
    tokens = random_tokens(4 * n_windows)
    found = collect(
        model,
        tokens,
        context=4,
        progress=lambda *counts: seen.append(counts),
        so_far=kept.append,
    )
    assert seen == [(4 * (i + 1), len(tokens)) for i in range(n_windows)]
    assert [matrix.chunk_count for matrix in kept] == [SO_FAR_WINDOWS, 2 * SO_FAR_WINDOWS]
    same(kept[0], collect(model, tokens[: 4 * SO_FAR_WINDOWS], context=4))
    assert found.chunk_count == n_windows


@pytest.mark.parametrize(("after", "chunks"), [(1, 0), (2, 1), (3, 1)])
def test_cancelled_it_gives_what_was_read(model: edgeqwen.Model, after: int, chunks: int) -> None:
    n_read = [PREFILL_TOKENS, WINDOW, WINDOW + PREFILL_TOKENS][after - 1]
    seen: list[int] = []
    found = collect(
        model,
        TOKENS,
        context=WINDOW,
        progress=lambda done, _: seen.append(done),
        cancelled=lambda: len(seen) == after,
    )
    assert found.n_tokens == seen[-1] == n_read
    assert found.chunk_count == chunks
    assert {entry.count for entry in found.entries.values()} == {n_read}


def test_an_error_in_the_middle_frees_the_cache(
    model: edgeqwen.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    new = model.engine.new_sequence
    monkeypatch.setattr(model.engine, "new_sequence", lambda: made.append(new()) or made[-1])

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(model, TOKENS, progress=fail)
    with pytest.raises(ClosedError):
        made[0].reserve(1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_no_numbers(folder: Path, value: float) -> None:
    norm = tensors(**F32_CACHE)["blk.1.ffn_norm.weight"]
    norm[70] = value
    changes = {"blk.1.ffn_norm.weight": norm}
    path = write_model(folder / "bad.gguf", tensors=changes, **F32_CACHE)
    seen: list[int] = []
    with (
        edgeqwen.load(path, n_threads=1) as model,
        pytest.raises(EdgeqwenError) as error,
    ):
        collect(model, TOKENS, context=10, progress=lambda done, _: seen.append(done))
    assert str(error.value) == (
        "blk.1.ffn_gate.weight: the squares of the activations of column 70 add up to "
        f"{value}; the model file is damaged, or its numbers overflow"
    )
    assert seen == [10]


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ([1] * 511, {}, "the text is too short: it has 511 tokens, expected at least 512, a win"),
        ([1], {"context": 2}, "the text is too short: it has 1 tokens, expected at least 2, a w"),
        ([], {}, "tokens is empty: give at least one token"),
        ("text", {}, "tokens is of type str: "),
        ([331], {"context": 1}, r"tokens\[0\] is 331: "),
        ([1, 2], {"context": 0}, "context is 0: expected a whole number of at least 1"),
        ([1, 2], {"context": 1025}, "the window has 1025 tokens: expected 1 to 1024, the model's"),
        ([1, 2], {"context": 1, "max_windows": 0}, "max_windows is 0: expected a whole number"),
    ],
)
def test_senseless_arguments(
    model: edgeqwen.Model, tokens: Any, options: dict[str, int], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        collect(model, tokens, **options)


def test_steps_without_observation_are_what_they_were(path: Path) -> None:
    tokens = random_tokens(40)
    with open_engine(path) as engine:
        sequence = engine.new_sequence()
        before = engine.prefill(sequence, tokens).copy()
        names = {
            step: engine._steps.recorded(step)[0].names for step in ("decode", "prefill", "logits")
        }
        sequence.truncate(0)
        engine.observe(sequence, tokens, engine.new_observation())
        sequence.truncate(0)
        np.testing.assert_array_equal(engine.prefill(sequence, tokens), before)
        for step, recorded in names.items():
            assert "observe" not in recorded
            assert engine._steps.recorded(step)[0].names == recorded
        assert engine._steps.recorded("observe")[0].names.count("observe") == 4 * 2 + 1
        assert not any("observe" in kernel for kernel in engine.kernels())
        sequence.close()


def test_an_observation_of_another_model(path: Path, folder: Path) -> None:
    other = write_model(folder / "other.gguf", n_layers=1, **F32_CACHE)
    with open_engine(path) as engine, open_engine(other) as another:
        sequence = engine.new_sequence()
        with pytest.raises(OptionError, match="this observation was made by another model"):
            engine.observe(sequence, [1, 2], another.new_observation())
        assert sequence.n_tokens == 0
        sequence.close()


def test_a_closed_model(path: Path) -> None:
    model = edgeqwen.load(path, n_threads=1)
    model.close()
    with pytest.raises(ClosedError):
        collect(model, TOKENS)
