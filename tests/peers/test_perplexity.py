"""Perplexity against the cross entropy that transformers gives for the same strided windows."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import edgeqwen
from edgeqwen.perplexity import perplexity
from edgeqwen.quant import quantize
from tests.hf_checkpoints import write_checkpoint

torch = pytest.importorskip("torch", reason="compares with transformers on torch")
transformers = pytest.importorskip("transformers", reason="compares with transformers")
pytestmark = pytest.mark.peers

N_TOKENS = 300


class Pair(NamedTuple):
    """The same weights in both runtimes."""

    theirs: Any
    ours: edgeqwen.Model


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("checkpoint")
    source = write_checkpoint(folder / "hf", hidden_size=128, intermediate_size=192, dtype="f32")
    quantize(source, folder / "f32.gguf", "f32")
    transformers.utils.logging.disable_progress_bar()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    with edgeqwen.load(folder / "f32.gguf", max_context=512, cache_type="f32") as ours:
        yield Pair(theirs, ours)


@pytest.mark.parametrize(("context", "stride"), [(64, 32), (64, 64), (50, 7), (512, 256)])
def test_cross_entropy(pair: Pair, context: int, stride: int) -> None:
    vocab_size = pair.ours.config.vocab_size
    ids = np.random.default_rng(5).integers(0, vocab_size, N_TOKENS).tolist()
    total, n_scored, end = 0.0, 0, 0
    for begin in range(0, N_TOKENS, stride):
        window = torch.tensor([ids[begin : begin + context]])
        labels = window.clone()
        # -100 is what transformers leaves out; it shifts the labels by one itself.
        labels[:, : max(end - begin, 0)] = -100
        n = int((labels[:, 1:] != -100).sum())
        if n:
            with torch.no_grad():
                total += float(pair.theirs(window, labels=labels).loss) * n
            n_scored += n
        end = begin + context
        if end >= N_TOKENS:
            break
    found = perplexity(pair.ours, ids, context=context, stride=stride)
    assert found.n_scored == n_scored
    assert found.mean_nll == pytest.approx(total / n_scored, rel=1e-5)
    assert found.perplexity == pytest.approx(np.exp(total / n_scored), rel=1e-4)
    assert 1 < np.log(found.perplexity) < 20  # neither certain nor absurd
