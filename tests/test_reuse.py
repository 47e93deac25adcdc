"""Long prompts are read once: by one process, or by none at all if that isn't wanted."""

from pathlib import Path

import numpy as np
import pytest

import edgeqwen
from edgeqwen import Model
from edgeqwen.cache import fingerprint
from edgeqwen.cache.prefix_store import stored_prefixes
from edgeqwen.errors import OptionError
from edgeqwen.kernels.cache_types import CACHE_TYPES
from edgeqwen.reuse import forget_prompts, kept_prompts

QUESTION = [11, 12, 13]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of prompts of its own; compiled kernels stay where they are."""
    monkeypatch.setattr("edgeqwen.reuse.user_prefixes", lambda: tmp_path / "prefixes")
    monkeypatch.setattr(fingerprint, "user_cache", lambda: tmp_path)
    return tmp_path / "prefixes"


@pytest.fixture
def prompt() -> list[int]:
    ids: list[int] = np.random.default_rng(0).integers(300, 1000, 600).tolist()
    return ids


def answer(model: Model, prompt: list[int]) -> tuple[list[int], int]:
    generation = model.generate(prompt, max_tokens=12, temperature=0)
    return generation.tokens, generation.stats.n_reused


def test_another_model_object_reads_only_what_is_new(prompt: list[int]) -> None:
    with edgeqwen.load(prefix_cache=False) as model:
        expected = [answer(model, prompt + rest) for rest in (QUESTION, [50], QUESTION[:1])]
    with edgeqwen.load() as model:
        assert answer(model, prompt + QUESTION) == (expected[0][0], 0)
    for rest, (tokens, _) in zip((QUESTION, [50], QUESTION[:1]), expected, strict=True):
        with edgeqwen.load() as model:
            n_shared = 600 if rest == [50] else 599 + len(rest)
            assert answer(model, prompt + rest) == (tokens, n_shared)


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
def test_logits_after_reuse_have_the_same_bits(prompt: list[int], cache_type: str) -> None:
    with edgeqwen.load(cache_type=cache_type) as model:
        answer(model, prompt + QUESTION)
        model._reuse.wait()
        found = model._reuse.find([*prompt, 50, 60], 0)
        reused, whole = model.engine.new_sequence(found), model.engine.new_sequence()
        assert reused.n_tokens == 600
        for rest in ([50], [60, 70]):
            expected = model.engine.prefill(whole, (prompt if not whole.n_tokens else []) + rest)
            expected = expected.copy()
            np.testing.assert_array_equal(model.engine.prefill(reused, rest), expected)
        reused.close()
        whole.close()


def test_a_chat_goes_on_with_what_another_has_read(tmp_path: Path) -> None:
    system = "edgeqwen runs models. " * 150
    with edgeqwen.load() as model:
        first = model.chat(system, temperature=0).send("How do I chat?")
        assert (first.text != "", first.stats.n_reused) == (True, 0)
    with edgeqwen.load() as model:
        # In memory, and into a session's file.
        for session in (None, tmp_path / "a.session"):
            chat = model.chat(system, session=session, temperature=0)
            again = chat.send("How do I chat?")
            assert again.text == first.text
            assert again.stats.n_reused == first.stats.n_prompt - 1
            chat.close()


def test_short_prompts_are_not_kept(folder: Path, prompt: list[int]) -> None:
    with edgeqwen.load() as model:
        answer(model, prompt[:400])
    assert not folder.exists()


def test_off_with_one_option(folder: Path, prompt: list[int]) -> None:
    with edgeqwen.load(prefix_cache=0) as model:
        answer(model, prompt)
    assert not folder.exists()
    with edgeqwen.load() as model:
        answer(model, prompt)
    with edgeqwen.load(prefix_cache=False) as model:
        assert answer(model, prompt)[1] == 0


def test_an_interrupted_prompt_is_kept_as_far_as_it_was_read(prompt: list[int]) -> None:
    with edgeqwen.load() as model:
        prompt = prompt * 2
        generation = model.generate(
            prompt, progress=lambda done, total: generation.cancel() if done > 600 else None
        )
        assert generation.text == ""
    with edgeqwen.load() as model:
        assert answer(model, prompt)[1] == 768


def test_what_is_kept_can_be_seen_and_deleted(folder: Path, prompt: list[int]) -> None:
    with edgeqwen.load() as model:
        answer(model, prompt)
    assert kept_prompts() == stored_prefixes(folder)
    [(path, size, _)] = kept_prompts()
    assert (path.exists(), size > 0) == (True, True)
    assert forget_prompts() == (1, size)
    assert kept_prompts() == []


def test_a_senseless_limit_is_refused() -> None:
    with pytest.raises(OptionError, match="prefix_cache is -1"):
        edgeqwen.load(prefix_cache=-1)
