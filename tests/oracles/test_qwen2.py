"""The numpy twin against Hugging Face transformers, and its imitation of the runtime's rounding."""

from typing import Any

import gguf
import numpy as np
import pytest

from edgeqwen.config import ModelConfig
from tests.oracles.qwen2 import Qwen2

torch = pytest.importorskip("torch", reason="the oracle is checked against transformers")
transformers = pytest.importorskip("transformers", reason="the oracle is checked against it")

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
TOKENS = np.random.default_rng(1).integers(0, 96, 80)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
LINEAR = {"rope_type": "linear", "factor": 8.0}


def random_model(**changes: Any) -> Any:
    """A transformers model in double precision: random, with large K biases and an outlier."""
    values = SHAPE | changes
    theta = values.pop("rope_theta")
    values["rope_parameters"] = {"rope_theta": theta, **values.get("rope_parameters", {})}
    values["rope_parameters"].setdefault("rope_type", "default")
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**values)).double().eval()
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            scale = 0.5 if "norm" in name else 4.0 if "k_proj.bias" in name else 0.15
            tensor.copy_(torch.randn(tensor.shape, generator=random, dtype=tensor.dtype) * scale)
            if "norm" in name:
                tensor.add_(1.0)
        model.model.embed_tokens.weight[:, 5] *= 30
    return model


def oracle_of(model: Any, **options: Any) -> Qwen2:
    config = ModelConfig.from_hf(model.config.to_dict(), source="a test")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.n_layers)
    weights = {
        str(names.get_name(name, (".weight", ".bias"))): tensor.detach().numpy()
        for name, tensor in model.named_parameters()
    }
    return Qwen2(config, weights, **options)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="untied"),
        pytest.param({"tie_word_embeddings": True}, id="tied"),
        pytest.param({"rope_theta": 10000.0, "rms_norm_eps": 1e-5}, id="math"),
        pytest.param({"num_key_value_heads": 4}, id="no groups"),
        pytest.param({"num_key_value_heads": 1}, id="one kv head"),
        pytest.param({"rope_parameters": YARN}, id="yarn"),
        pytest.param({"rope_parameters": YARN | {"attention_factor": 1.3}}, id="yarn factor"),
        pytest.param({"rope_parameters": YARN | {"beta_fast": 8, "beta_slow": 2}}, id="yarn betas"),
        pytest.param({"rope_parameters": LINEAR}, id="linear"),
    ],
)
def test_logits_are_those_of_transformers(changes: dict[str, Any]) -> None:
    model = random_model(**changes)
    with torch.no_grad():
        expected = model(torch.tensor(TOKENS)[None]).logits[0].numpy()
    logits = oracle_of(model).logits(TOKENS)
    # transformers computes norms and rotations in float32 even in a double model.
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("rope", [YARN, LINEAR])
def test_rope_scaling_changes_the_logits(rope: dict[str, Any]) -> None:
    plain = oracle_of(random_model()).logits(TOKENS)
    scaled = oracle_of(random_model(rope_parameters=rope)).logits(TOKENS)
    assert np.abs(scaled - plain).max() > 0.01 * np.abs(plain).max()


def test_float32_stays_near_float64() -> None:
    model = random_model()
    exact = oracle_of(model).logits(TOKENS)
    single = oracle_of(model, dtype=np.float32).logits(TOKENS)
    assert single.dtype == np.float32
    assert 0 < np.abs(single - exact).max() < 1e-4 * np.abs(exact).max()


def test_roundings_touch_only_what_they_name() -> None:
    model = random_model()
    records: dict[str, dict[str, np.ndarray]] = {"exact": {}, "int8": {}, "f16": {}}
    oracle_of(model).logits(TOKENS, records["exact"])
    oracle_of(model, int8=["blk.1.ffn_down.weight"]).logits(TOKENS, records["int8"])
    oracle_of(model, cache_type="f16").logits(TOKENS, records["f16"])

    def first_change(run: str) -> str:
        exact = records["exact"]
        return next(n for n, x in records[run].items() if not np.array_equal(x, exact[n]))

    assert first_change("int8") == "blk.1.ffn_down"
    assert first_change("f16") == "blk.0.k_rope"
