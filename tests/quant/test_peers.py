"""llama.cpp reads what the converter writes, and the converter what transformers writes."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant import TYPES, quantize
from tests.hf_checkpoints import write_checkpoint
from tests.oracles.blocks import read_weights
from tests.oracles.distributions import kl_divergence
from tests.oracles.qwen2 import Qwen2

pytestmark = pytest.mark.peers

TEXT = "Why is the sky blue?<|im_end|>\n It's <tool_call> 123 今天 <|fim_prefix|>"
# How far llama.cpp is from the same weights in float64: it rounds activations to the type of the
# weights (bf16), or to int8 where those are integers.
BUDGET = {"f32": 1e-6, "f16": 1e-3, "bf16": 1e-2}
INTEGER_BUDGET = 5e-3


@pytest.mark.parametrize("type", TYPES)
def test_llama_cpp(tmp_path: Path, type: str) -> None:
    pytest.importorskip("llama_cpp", reason="reads files with llama-cpp-python")
    from benchmarks.llama import LlamaCpp, llama_cpp

    # Plain weights: the roundings of the runtime aren't what is compared here.
    folder = write_checkpoint(tmp_path / "a", k_bias_norm=2.0, outlier_channels=0, tied=False)
    path = tmp_path / "x.gguf"
    quantize(folder, path, type)
    with GgufFile.open(path) as file:
        config = file.config()
    tokens = np.random.default_rng(0).integers(0, 400, 48).tolist()
    expected = Qwen2(config, read_weights(path)).logits(tokens)
    with LlamaCpp(path, n_threads=1, n_context=64, all_logits=True, float_cache=True) as model:
        found = model.logits(tokens)
        assert kl_divergence(expected, found).mean() < BUDGET.get(type, INTEGER_BUDGET)
        theirs = model.tokenize(TEXT, allow_special=True)
        assert theirs == Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids
        assert not llama_cpp.llama_vocab_get_add_bos(model.vocab)
        end = llama_cpp.llama_vocab_eos(model.vocab)
        assert [end] == model.tokenize("<|im_end|>", allow_special=True)


def test_saved_by_transformers(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="saves checkpoints with transformers")
    transformers = pytest.importorskip("transformers", reason="saves checkpoints with transformers")
    transformers.utils.logging.disable_progress_bar()
    # In folders of one name, which becomes the model's.
    first, second = tmp_path / "1" / "model", tmp_path / "2" / "model"
    write_checkpoint(first, tied=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(first)
    model.save_pretrained(second, max_shard_size="100KB")
    transformers.AutoTokenizer.from_pretrained(first).save_pretrained(second)
    assert len(list(second.glob("*.safetensors"))) > 1
    quantize(first, tmp_path / "1.gguf", "q8_0")
    quantize(second, tmp_path / "2.gguf", "q8_0")
    assert (tmp_path / "1.gguf").read_bytes() == (tmp_path / "2.gguf").read_bytes()
