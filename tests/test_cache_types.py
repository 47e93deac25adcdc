"""What the types of keys and values cost in perplexity, also where biases of keys are huge.

Real checkpoints have such biases: of norm 600 in the first layer, in few dimensions.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import edgeqwen
from edgeqwen.engine import Engine
from edgeqwen.guide import held_out_text
from edgeqwen.kernels.cache_types import CACHE_TYPES
from tests.engines import SHAPE, open_engine, write_model

# Of perplexity beside f16, as a share. In 4 bits, about 0.5 % was found.
MOST = {"bf16": 0.001, "q8_0": 0.001, "q4_0": 0.02}
BIAS_NORM = 600
WINDOW = 512


def mean_nll(logits: np.ndarray, tokens: Sequence[int]) -> float:
    """Returns the mean negative log likelihood of all tokens but the first."""
    shifted = logits[:-1].astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(shifted)), list(tokens[1:])]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - chosen))


@functools.cache
def of_the_built_in_model(cache_type: str) -> float:
    """Returns the perplexity of the built-in model on the text that comes with it."""
    with edgeqwen.load(cache_type=cache_type, max_context=WINDOW) as model:
        tokens = model.tokenizer.encode(held_out_text(), allow_special=True)
        windows = [tokens[i : i + WINDOW] for i in range(0, len(tokens) - WINDOW, WINDOW)]
        return float(np.exp(np.mean([mean_nll(model.logits(w), w) for w in windows])))


@pytest.mark.parametrize("cache_type", MOST)
def test_the_built_in_model(cache_type: str) -> None:
    change = of_the_built_in_model(cache_type) / of_the_built_in_model("f16") - 1
    assert abs(change) < MOST[cache_type]


def write_biased(folder: Path, dimensions: Sequence[int]) -> Path:
    """Writes a tiny model whose first layer has a K bias of norm 600 in these dimensions."""
    rng = np.random.default_rng(3)
    biases = rng.normal(0, 0.5, SHAPE["head_dim"])
    large = rng.standard_normal(len(dimensions))
    biases[list(dimensions)] = BIAS_NORM * large / np.linalg.norm(large)
    changed = {"blk.0.attn_k.bias": biases.astype(np.float32)}
    return write_model(folder / f"{len(dimensions)}.gguf", k_bias=0.5, tensors=changed)


def written_by(engine: Engine, n_tokens: int, seed: int) -> list[int]:
    """Returns a text that a model writes: each token drawn as the model finds it likely."""
    rng = np.random.default_rng(seed)
    sequence, tokens = engine.new_sequence(), [seed]
    while len(tokens) < n_tokens:
        logits = engine.decode(sequence, tokens[-1]).astype(np.float64)
        weights = np.exp(logits - logits.max())
        tokens.append(int(rng.choice(len(weights), p=weights / weights.sum())))
    sequence.close()
    return tokens


class Biased:
    """A model with large biases, texts that it wrote with exact keys, and its perplexity there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_engine(path, cache_type="f32") as engine:
            self.texts = [written_by(engine, WINDOW, seed) for seed in range(4)]

    @functools.cache  # noqa: B019 - as long as the tests of this file
    def perplexity(self, cache_type: str) -> float:
        with open_engine(self.path, cache_type=cache_type) as engine:
            found = [mean_nll(engine.logits(engine.new_sequence(), t), t) for t in self.texts]
        return float(np.exp(np.mean(found)))


@pytest.fixture(scope="module", params=[(5, 40, 41, 62), range(64)], ids=["few", "all"])
def biased(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Biased:
    return Biased(write_biased(tmp_path_factory.mktemp("biased"), request.param))


@pytest.mark.parametrize("cache_type", MOST)
def test_large_biases(biased: Biased, cache_type: str) -> None:
    change = biased.perplexity(cache_type) / biased.perplexity("f16") - 1
    assert abs(change) < MOST[cache_type]


@pytest.mark.parametrize("cache_type", ["q8_0", "q4_0"])
def test_large_biases_would_hurt_if_they_stayed(
    biased: Biased, cache_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These models do tell a type that lets biases swallow the range."""
    stay = dataclasses.replace(CACHE_TYPES[cache_type], bias_factor=np.inf)
    monkeypatch.setitem(CACHE_TYPES, cache_type, stay)
    naive = Biased.perplexity.__wrapped__(biased, cache_type)
    assert naive / biased.perplexity("f16") - 1 > MOST[cache_type]
