"""Sessions and models: the same logits after opening one, and which model may open it."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeqwen
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.errors import (
    SessionError,
)
from edgeqwen.kernels.cache_types import CACHE_TYPES
from edgeqwen.sessions import identity_of
from tests.engines import open_engine, random_tokens, write_model
from tests.session_chats import chat_of, fresh_answer


def file_of(engine: Any, stack: contextlib.ExitStack, path: Path) -> Any:
    return stack.enter_context(edgeqwen.gguf_file.GgufFile.open(path))


def bits(logits: np.ndarray) -> np.ndarray:
    return logits.view(np.int32)


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
def test_logits_after_opening_are_those_without_a_break(tmp_path: Path, cache_type: str) -> None:
    model = write_model(tmp_path / "model.gguf", types="Q4_0", k_bias=300.0)
    with open_engine(model, cache_type=cache_type) as engine, contextlib.ExitStack() as stack:
        identity = identity_of(engine, file_of(engine, stack, model))
        for n in (1, 2, 31, 32, 255, 256, 257, 512, 700):
            path, tokens = tmp_path / f"session{n}", random_tokens(n + 40, n)
            whole = engine.new_sequence()
            first = engine.prefill(whole, tokens[:n]).copy()
            expected = [engine.decode(whole, token).copy() for token in tokens[n : n + 5]]
            expected.append(engine.prefill(whole, tokens[n + 5 :]).copy())
            with contextlib.closing(engine.new_sequence(SessionFile.create(path, identity))) as s:
                np.testing.assert_array_equal(bits(engine.prefill(s, tokens[:n])), bits(first))
            found = []
            for token in tokens[n : n + 5]:
                with contextlib.closing(engine.new_sequence(SessionFile.open(path, identity))) as s:
                    found.append(engine.decode(s, token).copy())
            with contextlib.closing(engine.new_sequence(SessionFile.open(path, identity))) as s:
                found.append(engine.prefill(s, tokens[n + 5 :]).copy())
                # One token is read again, as the next turn of a chat may do it.
                s.truncate(n + 39)
                found.append(engine.prefill(s, tokens[n + 39 :]).copy())
                expected.append(expected[-1])
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(bits(a), bits(b))
            whole.close()


def test_what_lies_where_no_token_is_changes_nothing(tmp_path: Path) -> None:
    """A place of the file that is used again holds anything: not numbers, for one."""
    model = write_model(tmp_path / "model.gguf", types="Q4_0")
    with open_engine(model) as engine, contextlib.ExitStack() as stack:
        identity = identity_of(engine, file_of(engine, stack, model))
        for n in (1, 33, 70, 255, 300):
            tokens = random_tokens(n)
            session = SessionFile.create(tmp_path / f"session{n}", identity)
            sequence = engine.new_sequence(session)
            sequence.reserve(n + 1)
            for segment in session.segments:
                segment.view(0, engine.layout.segment_bytes)[:] = 255
            fresh = engine.new_sequence()
            for step in (
                lambda s, tokens=tokens: engine.prefill(s, tokens),
                lambda s: engine.decode(s, 5),
            ):
                expected = step(fresh).copy()
                np.testing.assert_array_equal(bits(step(sequence)), bits(expected))
            sequence.close()
            fresh.close()


def test_a_session_of_another_model_is_refused_or_read_again(tmp_path: Path) -> None:
    options: dict[str, Any] = {"types": "Q4_0"}
    base = write_model(tmp_path / "base.gguf", **options)
    long = {"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0}
    long["qwen2.rope.scaling.original_context_length"] = 256
    others = [
        (write_model(tmp_path / "seed.gguf", seed=1, **options), {}, "other weights"),
        (
            write_model(
                tmp_path / "theta.gguf", metadata={"qwen2.rope.freq_base": 10_000.0}, **options
            ),
            {},
            "other RoPE settings",
        ),
        (write_model(tmp_path / "yarn.gguf", metadata=long, **options), {}, "other RoPE settings"),
        (
            write_model(
                tmp_path / "eps.gguf",
                metadata={"qwen2.attention.layer_norm_rms_epsilon": 1e-5},
                **options,
            ),
            {},
            "other RoPE settings",
        ),
        (base, {"cache_type": "f32"}, "its cache type is f16, the model's is f32"),
    ]
    path = tmp_path / "session"
    with edgeqwen.load(base, n_threads=2) as model:
        chat = chat_of(model, path)
        chat.send("hello", max_tokens=5).close()
        list(chat.send("hello", max_tokens=5))
        messages = chat.messages
        chat.close()
    before = path.read_bytes()
    for other, options, reason in others:
        with edgeqwen.load(other, n_threads=2, **options) as model:
            with pytest.raises(SessionError, match=f"can't be continued: .*{reason}.*--rebuild"):
                chat_of(model, path)
            with pytest.raises(SessionError, match=reason):
                chat_of(model, path, fork=True)
            assert path.read_bytes() == before
            chat = chat_of(model, path, rebuild=True)
            assert chat.messages == messages
            answer = chat.send("and?", max_tokens=5)
            assert answer.stats.n_reused == 0
            assert answer.text == fresh_answer(model, chat.messages[:-1], max_tokens=5)
            chat.close()
            chat = chat_of(model, path)
            assert len(chat.messages) == len(messages) + 2
            chat.close()
        path.write_bytes(before)
    with edgeqwen.load(base, n_threads=2, max_context=512) as model:  # which is no part of it
        chat = chat_of(model, path, rebuild=True)
        assert chat.send("and?", max_tokens=1).stats.n_reused > 0
        chat.close()
