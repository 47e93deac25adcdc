"""F32 files against Hugging Face transformers: the same logits, the same greedy tokens.

The true shape of the 0.5B takes minutes and about 8 GB of memory and of disk; ``pytest -m slow``
adds it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from edgeqwen.engine import Engine
from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant import quantize
from tests.hf_checkpoints import write_checkpoint
from tests.oracles.distributions import deviation, entropy

torch = pytest.importorskip("torch", reason="compares with transformers on torch")
transformers = pytest.importorskip("transformers", reason="compares with transformers")
pytestmark = pytest.mark.peers

# The promise is 1e-3 of the largest logit. Float32 leaves far less, and the tighter bound also
# sees an epsilon or a rotation that is slightly wrong.
TOLERANCE = 2e-4
N_PROMPT, N_GREEDY = 96, 64

TINY: dict[str, Any] = {
    "n_layers": 3,
    "hidden_size": 256,
    "intermediate_size": 320,
    "n_heads": 4,
    "n_kv_heads": 2,
    "dtype": "f32",
}
TRUE_0_5B: dict[str, Any] = {
    "n_layers": 24,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "n_heads": 14,
    "n_kv_heads": 2,
    "vocab_size": 151936,
    "dtype": "bf16",
}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
LINEAR = {"type": "linear", "factor": 2.0}
CASES = [
    pytest.param(TINY, id="tied"),
    pytest.param(TINY | {"tied": False}, id="untied"),
    pytest.param(
        TINY | {"tied": False, "rope_theta": 10000.0, "rms_norm_eps": 1e-5}, id="math, eps 1e-5"
    ),
    pytest.param(TINY | {"rope_scaling": YARN}, id="yarn"),
    pytest.param(TINY | {"rope_scaling": YARN, "config_generation": 2}, id="yarn, new config"),
    pytest.param(TINY | {"rope_scaling": LINEAR}, id="linear rope"),
    pytest.param(TRUE_0_5B, id="0.5B tied", marks=pytest.mark.slow),
    pytest.param(TRUE_0_5B | {"tied": False}, id="0.5B untied", marks=pytest.mark.slow),
]


class Pair(NamedTuple):
    """The same weights in both runtimes."""

    theirs: Any
    ours: Engine


@pytest.fixture(scope="module", params=CASES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("checkpoint")
    source = write_checkpoint(folder / "hf", **request.param)
    path = folder / "f32.gguf"
    quantize(source, path, "f32")
    transformers.utils.logging.disable_progress_bar()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    (source / "model.safetensors").unlink()
    with GgufFile.open(path) as file:
        # K biases as large as real ones overwhelm an f16 cache: transformers keeps K in float32.
        ours = Engine(file, max_context=256, cache_type="f32")
        yield Pair(theirs, ours)
        ours.close()
    path.unlink()


def prompt(pair: Pair) -> list[int]:
    random = np.random.default_rng(5)
    ids: list[int] = random.integers(0, pair.ours.config.vocab_size, N_PROMPT).tolist()
    return ids


def test_logits(pair: Pair) -> None:
    tokens = prompt(pair)
    with torch.no_grad():
        expected = pair.theirs(torch.tensor([tokens])).logits[0].numpy()
    sequence = pair.ours.new_sequence()
    logits = pair.ours.logits(sequence, tokens)
    sequence.close()
    assert entropy(expected).mean() > 0.5
    assert deviation(logits, expected) < TOLERANCE
    sequence = pair.ours.new_sequence()
    assert deviation(pair.ours.prefill(sequence, tokens), expected[-1]) < TOLERANCE
    sequence.close()


def test_greedy_tokens(pair: Pair) -> None:
    tokens = prompt(pair)[:16]
    expected = theirs_greedy(pair.theirs, tokens)
    assert len(set(expected)) > 8  # a model that repeats itself would prove little
    assert ours_greedy(pair.ours, tokens) == expected


def ours_greedy(engine: Engine, tokens: list[int]) -> list[int]:
    sequence = engine.new_sequence()
    chosen = [int(engine.prefill(sequence, tokens).argmax())]
    while len(chosen) < N_GREEDY:
        chosen.append(int(engine.decode(sequence, chosen[-1]).argmax()))
    sequence.close()
    return chosen


def theirs_greedy(model: Any, tokens: list[int]) -> list[int]:
    # Instead of the checkpoint's, which penalises repetitions, and ends texts at some tokens.
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    prompt = torch.tensor([tokens])
    found = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=N_GREEDY,
    )
    chosen: list[int] = found[0, len(tokens) :].tolist()
    return chosen
