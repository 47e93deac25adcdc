"""The page about sessions tells the truth: a reader that knows it alone reads what was written."""

from pathlib import Path

import numpy as np
import pytest

from edgeqwen.cache.disk import boot_identity
from edgeqwen.cache.session_file import SessionFile
from edgeqwen.cache.session_format import MAGIC
from edgeqwen.gguf_file import GgufFile
from edgeqwen.sessions import identity_of
from tests.cache.filled import IDENTITY, create, extend, marks, random_ids
from tests.engines import open_engine, write_model
from tests.oracles.session_reader import SessionReader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A session in which places were given back, and not all is sealed."""
    session = create(tmp_path / "session", random_ids(700), b"said before")
    session.seal()
    session.truncate(500)
    session.set_transcript("gesagt: Grüße".encode())
    session.seal()
    extend(session, random_ids(300, 1))
    session.set_transcript(b"said")
    session.abandon()
    return tmp_path / "session"


def test_all_that_is_there(path: Path) -> None:
    reader = SessionReader(path.read_bytes(), boot_identity())
    tokens = random_ids(700)[:500] + random_ids(300, 1)
    assert reader.tokens() == tokens
    assert reader.transcript() == b"said"
    assert reader.n_covered() == 500
    assert reader.record["edits"] == 1
    assert 1.7e9 < reader.record["time"] < 5e9
    expected = marks(tokens).view(np.float16).astype(np.float32)
    for position in (0, 31, 32, 63, 64, 255, 256, 499, 500, 799):
        for part in reader.keys_and_values(position):
            assert part.shape == (2, 1, 64)
            np.testing.assert_array_equal(part, np.full(part.shape, expected[position]))


def test_whose_it_is(path: Path) -> None:
    identity = SessionReader(path.read_bytes(), boot_identity()).identity
    layout = IDENTITY.layout
    assert identity["magic"] == MAGIC
    assert (identity["version"], identity["segment"]) == (1, 256)
    assert identity["n_layers"] == layout.n_layers
    assert identity["n_kv_heads"] == layout.n_kv_heads
    assert identity["head_dim"] == layout.head_dim
    assert identity["segment_bytes"] == layout.segment_bytes
    assert identity["cache_type"].rstrip(b"\0") == b"f16"
    assert (identity["weights"], identity["settings"]) == (IDENTITY.weights, IDENTITY.settings)
    assert identity["vocab_size"] == 1000
    assert identity["model"].rstrip(b"\0") == b"filled"


@pytest.mark.parametrize("boot", [bytes(16), bytes([3] * 16)])
def test_what_is_left_after_the_system_was_started_anew(path: Path, boot: bytes) -> None:
    reader = SessionReader(path.read_bytes(), boot)
    assert reader.tokens() == random_ids(700)[:500]
    assert reader.transcript().decode() == "gesagt: Grüße"
    assert reader.n_covered() == 500


def test_an_empty_session(tmp_path: Path) -> None:
    create(tmp_path / "session").close()
    reader = SessionReader((tmp_path / "session").read_bytes(), boot_identity())
    assert (reader.tokens(), reader.transcript(), reader.n_covered()) == ([], b"", 0)


STEPS = {"f16": 2**-11, "bf16": 2**-8, "q8_0": 0.5 / 127, "q4_0": 1 / 8}
"""How far an element may be from what it was, in units of the largest of its 32."""


def test_every_cache_type(tmp_path: Path) -> None:
    """What a model writes, beside what it writes in f32."""
    tokens = random_ids(300)
    model = write_model(tmp_path / "model.gguf", types="F32", n_layers=2, k_bias=0.1)

    def read(cache_type: str) -> SessionReader:
        with GgufFile.open(model) as file, open_engine(model, cache_type=cache_type) as engine:
            path = tmp_path / cache_type
            sequence = engine.new_sequence(SessionFile.create(path, identity_of(engine, file)))
            assert not engine.biases_apart.any()
            engine.prefill(sequence, [token % engine.config.vocab_size for token in tokens])
            assert not engine.biases_apart.any()
            sequence.close()
            return SessionReader(path.read_bytes(), boot_identity())

    exact = read("f32")
    for cache_type, step in STEPS.items():
        reader = read(cache_type)
        assert reader.n_covered() == 300
        for position in (0, 31, 32, 100, 255, 256, 299):
            pairs = zip(
                reader.keys_and_values(position), exact.keys_and_values(position), strict=True
            )
            for found, wanted in pairs:
                # Of the first layer: what comes after it was computed from what it holds.
                rows = wanted[0].reshape(-1, 32)
                allowed = step * np.abs(rows).max(axis=1, keepdims=True) * 1.01
                assert (np.abs(found[0].reshape(-1, 32) - rows) <= allowed).all(), cache_type
                assert found.any(axis=-1).all()
