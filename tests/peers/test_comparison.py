"""The comparison of two files against that of llama.cpp's logits for the same windows.

Beside quantized weights both runtimes round activations to int8, each in its own way, which a KL
divergence feels, too: mean, median and 99% quantile may differ by a tenth. (They differed by about
2% for Q4_0 and 4% for Q8_0.) The change of the mean likelihood is smaller than what that rounding
alone adds to it. So the weights of Q8_0 are compared as float32, too, of which both runtimes
compute the same.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from edgeqwen import load
from edgeqwen.comparison import compare
from edgeqwen.guide import held_out_text
from edgeqwen.perplexity import windows
from edgeqwen.quant import quantize
from tests.guide.test_built_in_model import CHECKPOINT
from tests.oracles.distributions import kl_divergence, log_softmax

pytest.importorskip("llama_cpp", reason="compares with llama.cpp (llama-cpp-python)")
pytestmark = pytest.mark.peers

from benchmarks import llama  # noqa: E402  (imports llama_cpp)

N_TOKENS, CONTEXT, STRIDE = 2000, 512, 256


def llama_logits(path: Path, tokens: list[int]) -> np.ndarray:
    """Returns the logits that predict each token but the first, in the windows of ``compare``."""
    rows = []
    with llama.LlamaCpp(path, n_threads=1, n_context=CONTEXT, all_logits=True) as model:
        for begin, first, end in windows(len(tokens), CONTEXT, STRIDE):
            rows.append(model.logits(tokens[begin : end - 1])[first - 1 - begin :])
    return np.concatenate(rows)


@pytest.mark.parametrize("type", ["q8_0", "q4_0", "q8_0 as f32"])
def test_divergence_of_llama_cpp(type: str, tmp_path: Path) -> None:
    exact = type.endswith("f32")
    paths = [tmp_path / "f16.gguf", tmp_path / f"{type.split()[0]}.gguf"]
    for path in paths:
        quantize(CHECKPOINT, path, path.stem)
    if exact:
        quantize(paths[1], tmp_path / "f32.gguf", "f32")
        paths[1] = tmp_path / "f32.gguf"
    with load(paths[0]) as a, load(paths[1]) as b:
        tokens = a.tokenizer.encode(held_out_text(), allow_special=True)[:N_TOKENS]
        found = compare(a, b, tokens, context=CONTEXT, stride=STRIDE)
    one, other = (llama_logits(path, tokens) for path in paths)
    kl = kl_divergence(one, other)
    rows, own = np.arange(N_TOKENS - 1), tokens[1:]
    nll_a, nll_b = (-log_softmax(x)[rows, own] for x in (one, other))
    same_top = (one.argmax(axis=1) == other.argmax(axis=1)).mean()
    assert found.n_scored == N_TOKENS - 1
    rel = 0.03 if exact else 0.1
    assert found.kl.mean == pytest.approx(kl.mean(), rel=rel)
    assert found.kl_median == pytest.approx(np.median(kl), rel=rel)
    assert found.kl_p99 == pytest.approx(np.quantile(kl, 0.99), rel=rel)
    assert found.same_top.mean == pytest.approx(same_top, abs=0.003)
    assert found.nll_a.mean == pytest.approx(nll_a.mean(), abs=1e-4)
    if exact:
        assert found.nll_change.mean == pytest.approx((nll_b - nll_a).mean(), abs=1e-5)
    difference = found.nll_b.mean - found.nll_a.mean
    assert found.nll_change.mean == pytest.approx(difference, abs=1e-9)
    error = np.std(nll_b - nll_a, ddof=1) / math.sqrt(N_TOKENS - 1)
    assert found.nll_change.se == pytest.approx(error, rel=0.2)
