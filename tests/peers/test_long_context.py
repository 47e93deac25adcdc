"""YaRN to 131,072 positions against Hugging Face transformers, at positions that lie far apart.

The logits are those of a model of one layer: its keys and values depend on the tokens alone, so
that transformers needs to run only the tokens whose logits are compared, with a cache of what came
before. The engine reads every token, which takes half a minute.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edgeqwen.config import ModelConfig
from edgeqwen.engine import Engine
from edgeqwen.gguf_file import GgufFile
from edgeqwen.kernels.attention_types import attention_shape
from edgeqwen.kernels.rope import ANGLES, angles
from edgeqwen.model.rope_frequencies import rope_frequencies
from edgeqwen.quant import quantize
from edgeqwen.simd.isa import current_isa
from tests.config_samples import hf_config
from tests.hf_checkpoints import write_checkpoint
from tests.kernels.running import bits, run, step_state
from tests.oracles.distributions import deviation

torch = pytest.importorskip("torch", reason="compares with transformers on torch")
transformers = pytest.importorskip("transformers", reason="compares with transformers")
pytestmark = pytest.mark.peers

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
N_POSITIONS = 131072
POSITIONS = (0, 1, 255, 4096, 32767, 32768, 50001, 65535, 65536, 100000, 131070, 131071)
# Numpy and torch compute theta ** x in float32, each to one rounding or two; so their frequencies
# differ by up to two.
FREQUENCY_ERROR = 2.5e-7
# Of the largest logit.
TOLERANCE = 1e-4
# Enough that attention depends on where a token stands, and little enough that it doesn't drown
# what the tokens themselves add to the keys.
K_BIAS_NORM = 20.0


@pytest.mark.parametrize("size", ["0.5B", "7B"])  # heads of 64 and of 128
def test_rotations(size: str) -> None:
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

    values = hf_config(size, rope_theta=None, torch_dtype=None)
    values["rope_parameters"] = {"rope_theta": 1e6, **YARN}
    config = ModelConfig.from_hf(values, source="a test")
    assert config.max_context == N_POSITIONS
    theirs = Qwen2RotaryEmbedding(transformers.Qwen2Config(**values))
    frequencies, factor = rope_frequencies(config)
    np.testing.assert_allclose(frequencies, theirs.inv_freq.numpy(), rtol=FREQUENCY_ERROR)
    assert factor == pytest.approx(theirs.attention_scaling, rel=1e-12)

    half = config.head_dim // 2
    found = np.zeros((len(POSITIONS), 2, half), np.float32)
    for row, position in zip(found, POSITIONS, strict=True):
        arguments = {
            "state": step_state(1, position),
            "frequencies": frequencies,
            "scale": bits(factor),
            "angles": row,
        }
        run(angles, attention_shape(current_isa(), 2 * half, 7, True, "f16"), ANGLES, 1, arguments)
    cos, sin = theirs(torch.zeros(1), torch.tensor([POSITIONS]))
    expected = np.stack([part[0, :, :half].numpy() for part in (cos, sin)], axis=1)
    # The angles of float32 are one rounding off, too, where the frequencies differ.
    angle = np.array(POSITIONS)[:, None] * frequencies.astype(np.float64)
    bound = factor * (angle * (FREQUENCY_ERROR + 2**-23) + 2e-7)
    assert (np.abs(found - expected) <= bound[:, None]).all()
    same = frequencies == theirs.inv_freq.numpy()
    assert same.sum() > half / 2
    np.testing.assert_allclose(found[:, :, same], expected[:, :, same], rtol=0, atol=3e-7)


class Pair(NamedTuple):
    """The same weights in both runtimes."""

    theirs: Any
    ours: Engine
    source: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("long")
    source = write_checkpoint(
        folder / "hf",
        n_layers=1,
        hidden_size=64,
        n_heads=1,
        n_kv_heads=1,
        dtype="f32",
        max_context=32768,
        rope_scaling=YARN,
        k_bias_norm=K_BIAS_NORM,
    )
    quantize(source, folder / "f32.gguf", "f32")
    transformers.utils.logging.disable_progress_bar()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    with GgufFile.open(folder / "f32.gguf") as file:
        ours = Engine(file, cache_type="f32")
        yield Pair(theirs, ours, source)
        ours.close()


def theirs_at(model: Any, tokens: list[int], positions: tuple[int, ...]) -> np.ndarray:
    """Returns transformers' logits after the tokens at some positions: [n, vocab_size]."""
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    ids = torch.tensor([tokens])
    (layer,) = model.model.layers
    # Its name in transformers 5, and the one before.
    known = inspect.signature(model.forward).parameters
    name = "cache" if "cache" in known else "past_key_values"
    rows = []
    with torch.no_grad():
        hidden = layer.input_layernorm(model.model.embed_tokens(ids))
        k = layer.self_attn.k_proj(hidden)[:, None]
        v = layer.self_attn.v_proj(hidden)[:, None]
        cos, sin = model.model.rotary_emb(hidden, torch.arange(len(tokens))[None])
        _, k = apply_rotary_pos_emb(k, k, cos, sin)
        for p in positions:
            cache = transformers.DynamicCache()
            if p:
                cache.update(k[:, :, :p], v[:, :, :p], 0)
            found = model(
                ids[:, p : p + 1],
                position_ids=torch.tensor([[p]]),
                use_cache=True,
                **{name: cache},
            )
            rows.append(found.logits[0, 0].numpy())
    return np.array(rows)


def test_logits_to_131072_positions(pair: Pair) -> None:
    assert pair.ours.max_context == N_POSITIONS
    tokens = np.random.default_rng(3).integers(0, pair.ours.config.vocab_size, N_POSITIONS).tolist()
    expected = theirs_at(pair.theirs, tokens, POSITIONS)
    sequence = pair.ours.new_sequence()
    rows, read = [], 0
    for position in POSITIONS:
        # The last tokens by steps of one, which attend otherwise than steps of many.
        step = pair.ours.decode if position >= 131070 else None
        if step is not None and read < position:
            pair.ours.prefill(sequence, tokens[read:position])
        if step is not None:
            logits = step(sequence, tokens[position])
        else:
            logits = pair.ours.prefill(sequence, tokens[read : position + 1])
        rows.append(logits.copy())
        read = position + 1
    sequence.close()
    for row, exact in zip(rows, expected, strict=True):
        assert deviation(row, exact) < TOLERANCE
    # What is compared depends on YaRN, far away and near.
    plain = transformers.AutoConfig.from_pretrained(pair.source)
    plain.rope_parameters = {"rope_type": "default", "rope_theta": 1e6}
    pair.theirs.model.rotary_emb = type(pair.theirs.model.rotary_emb)(plain)
    others = theirs_at(pair.theirs, tokens, POSITIONS[3:])
    for other, exact in zip(others, expected[3:], strict=True):
        assert deviation(other, exact) > 0.1
