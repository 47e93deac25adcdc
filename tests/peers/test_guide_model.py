"""The built-in model in other runtimes: trained weights say more than random ones."""

from pathlib import Path

import numpy as np
import pytest

from edgeqwen import load
from edgeqwen.guide import held_out_text, model_path
from edgeqwen.perplexity import perplexity
from edgeqwen.quant import TYPES, quantize
from tests.guide.test_built_in_model import CHECKPOINT, PROMPTS
from tests.oracles.distributions import deviation, kl_divergence

pytestmark = pytest.mark.peers

N_TOKENS = 1024


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    with load() as model:
        return model.tokenizer.encode(held_out_text(), allow_special=True)[:N_TOKENS]


def test_logits_of_transformers(tokens: list[int], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="compares with transformers on torch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    quantize(CHECKPOINT, tmp_path / "f32.gguf", "f32")
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0].numpy()
    with load(tmp_path / "f32.gguf", cache_type="f32") as model:
        assert deviation(model.logits(tokens), expected) < 2e-4


def test_prompts_and_answers_of_transformers() -> None:
    torch = pytest.importorskip("torch", reason="compares with transformers on torch")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    with load() as model:
        for prompt in PROMPTS[:4]:
            messages = [{"role": "user", "content": prompt}]
            text = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
            assert text == model.chat_template.render(messages)
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            found = theirs.generate(ids, max_new_tokens=80)[0, ids.shape[1] :]
            expected = tokenizer.decode(found, skip_special_tokens=True)
            assert model.chat().send(prompt, max_tokens=80).text == expected


def test_the_shipped_file_in_llama_cpp(tokens: list[int]) -> None:
    runtimes_agree(model_path(), tokens)


@pytest.mark.parametrize("writer", ["edgeqwen", "llama.cpp"])
@pytest.mark.parametrize("type", [type for type in TYPES if type != "f32"])
def test_files_of_every_type_in_both(
    type: str, writer: str, tokens: list[int], tmp_path: Path
) -> None:
    source, path = tmp_path / "f16.gguf", tmp_path / "x.gguf"
    if writer == "edgeqwen":
        quantize(CHECKPOINT, path, type)
    else:
        pytest.importorskip("llama_cpp", reason="compares with llama.cpp (llama-cpp-python)")
        from benchmarks import llama

        quantize(CHECKPOINT, source, "f16")
        llama.quantize(source, path, type)
    runtimes_agree(path, tokens)


def runtimes_agree(path: Path, tokens: list[int]) -> None:
    """Both runtimes predict alike, but for what each rounds: activations and KV cache."""
    pytest.importorskip("llama_cpp", reason="compares with llama.cpp (llama-cpp-python)")
    from benchmarks import llama

    with llama.LlamaCpp(path, n_threads=1, n_context=N_TOKENS, all_logits=True) as theirs:
        expected = theirs.logits(tokens)
    with load(path) as model:
        found = model.logits(tokens)
        ours = perplexity(model, tokens, context=N_TOKENS).perplexity
    assert kl_divergence(expected, found).mean() < 1e-3
    own = np.array(tokens[1:])
    scores = expected[:-1].astype(np.float64)
    log_sum = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
    nll = log_sum - scores[np.arange(len(own)), own]
    # The standard error of either, on so few tokens, is some 5 %.
    assert ours == pytest.approx(np.exp(nll.mean()), rel=0.01)
