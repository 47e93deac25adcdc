"""The same GGUF file in edgeqwen and in llama.cpp: the same tokens, the same distributions.

What two runtimes may differ by: in files with quantized weights both round activations to int8,
each a little differently, and one rounding that falls the other way is a step of 1/127. Those
errors are random, and neither runtime is nearer to the exact result; with float weights, both
round nothing but K and V, and the distributions agree a hundred thousand times better.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.engine import Engine
from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant import TYPES, quantize
from edgeqwen.text.tokenizer import Tokenizer
from tests.hf_checkpoints import write_checkpoint
from tests.oracles.blocks import read_weights, tensor_types
from tests.oracles.distributions import entropy, kl_divergence
from tests.oracles.qwen2 import Qwen2

pytest.importorskip("llama_cpp", reason="compares with llama.cpp (llama-cpp-python)")
pytestmark = pytest.mark.peers

from benchmarks import llama  # noqa: E402  (imports llama_cpp)

N_POSITIONS = 256
# The heads of the 0.5B, its width, and logits that spread enough to prefer some tokens.
MODEL: dict[str, Any] = {
    "n_layers": 2,
    "hidden_size": 896,
    "intermediate_size": 1536,
    "n_heads": 14,
    "n_kv_heads": 2,
    "logit_std": 1.5,
}
# Mean nats by which llama.cpp's distributions may differ: the promise for quantized files, and
# for the float ones what float32 sums, or activations in f16 and bf16 in llama.cpp, account for.
FLOAT_LIMITS = {"f32": 1e-7, "f16": 5e-6, "bf16": 2e-4}
# Where weights are integers, both round activations to int8, in blocks of their own.
INTEGER_LIMIT = 2e-3
# The error of a tensor relative to its weights, as root mean squares.
LARGEST_ERRORS = {
    "f32": 0.0,
    "f16": 1e-3,
    "bf16": 4e-3,
    "q8_0": 1e-2,
    "q6_k": 0.03,
    **dict.fromkeys(("q5_0", "q5_1", "q5_k_s", "q5_k_m"), 0.07),
    **dict.fromkeys(("q4_0", "q4_1", "q4_k_s", "q4_k_m", "iq4_nl", "iq4_xs"), 0.15),
    **dict.fromkeys(("q3_k_s", "q3_k_m", "q3_k_l", "q2_k"), 0.25),
}
TEXTS = (
    "Why is the sky blue?",
    "  def f(x):\n\treturn x ** 2  # squared\r\n\r\n\n",
    "I'll say they've DON'T'd 1234567 times; naïve café — „Übergröße“ …",
    "今天天气很好，我们去公园散步吧。🙂🙃 Привет\u00a0мир!",
    "<|im_start|>user\nhello<|im_end|>\n<|endoftext|>",
    "",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an F32 file of MODEL and files of every type, made when first asked for."""
    folder = tmp_path_factory.mktemp("llama")
    write_checkpoint(folder / "hf", **MODEL, dtype="f32")
    return folder


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    ids: list[int] = np.random.default_rng(5).integers(0, 400, N_POSITIONS).tolist()
    return ids


def file_of(folder: Path, type: str) -> Path:
    path = folder / f"{type}.gguf"
    if not path.exists():
        quantize(folder / "hf", path, type)
    return path


def our_logits(path: Path, tokens: list[int]) -> np.ndarray:
    with GgufFile.open(path) as file:
        engine = Engine(file, max_context=N_POSITIONS)
        sequence = engine.new_sequence()
        logits = engine.logits(sequence, tokens)
        sequence.close()
        engine.close()
    return logits


def llama_logits(path: Path, tokens: list[int]) -> np.ndarray:
    # One thread: its threads spin for one another, and a busy machine would stop them for minutes.
    with llama.LlamaCpp(path, n_threads=1, n_context=N_POSITIONS, all_logits=True) as model:
        return model.logits(tokens)


def exact_logits(path: Path, tokens: list[int]) -> np.ndarray:
    with GgufFile.open(path) as file:
        return Qwen2(file.config(), read_weights(path)).logits(tokens)


def mean_kl(reference: np.ndarray, logits: np.ndarray) -> float:
    return float(kl_divergence(reference, logits).mean())


@pytest.mark.parametrize("type", TYPES)
def test_distributions(folder: Path, tokens: list[int], type: str) -> None:
    path = file_of(folder, type)
    theirs, ours = llama_logits(path, tokens), our_logits(path, tokens)
    assert 2 < entropy(theirs).mean() < 5 < np.log(theirs.shape[1])
    assert mean_kl(theirs, ours) < FLOAT_LIMITS.get(type, INTEGER_LIMIT)


@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_int8_costs_no_more_than_in_llama_cpp(folder: Path, tokens: list[int], type: str) -> None:
    path = file_of(folder, type)
    exact = exact_logits(path, tokens)
    ours, theirs = (mean_kl(exact, f(path, tokens)) for f in (our_logits, llama_logits))
    assert ours < 1.1 * theirs


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"tied": False}, id="untied"),
        pytest.param({"rope_theta": 10000.0, "rms_norm_eps": 1e-5}, id="math"),
        pytest.param(
            {
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 1024,
                }
            },
            id="yarn",
        ),
        pytest.param({"rope_scaling": {"type": "linear", "factor": 8.0}}, id="linear rope"),
    ],
)
def test_variants(tmp_path: Path, tokens: list[int], changes: dict[str, Any]) -> None:
    write_checkpoint(tmp_path / "hf", **(MODEL | changes), dtype="f32")
    path = file_of(tmp_path, "f32")
    assert mean_kl(llama_logits(path, tokens), our_logits(path, tokens)) < FLOAT_LIMITS["f32"]


@pytest.mark.parametrize("type", ["f16", "q8_0", "q4_0", "q5_1", "iq4_nl"])
def test_files_of_llama_cpp_are_read(
    folder: Path, tokens: list[int], type: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{type}-by-llama.gguf"
    llama.quantize(file_of(folder, "f32"), path, type)
    assert type.upper() in tensor_types(path).values()
    limit = FLOAT_LIMITS.get(type, INTEGER_LIMIT)
    assert mean_kl(llama_logits(path, tokens), our_logits(path, tokens)) < limit


@pytest.mark.parametrize("type", TYPES)
def test_gguf_reads_every_type(folder: Path, type: str) -> None:
    path = file_of(folder, type)
    exact, rounded = read_weights(file_of(folder, "f32")), read_weights(path)
    assert rounded.keys() == exact.keys()
    bound = LARGEST_ERRORS[type]
    for name, values in exact.items():
        error = np.sqrt(np.mean((rounded[name] - values) ** 2) / np.mean(values**2))
        assert error <= bound, name


@pytest.fixture(scope="module")
def both_tokenizers(folder: Path) -> Iterator[tuple[Tokenizer, llama.LlamaCpp]]:
    path = file_of(folder, "q4_0")
    with llama.LlamaCpp(path, n_threads=1) as model:
        yield Tokenizer.from_gguf(path), model


@pytest.mark.parametrize("allow_special", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_tokens(
    both_tokenizers: tuple[Tokenizer, llama.LlamaCpp], text: str, allow_special: bool
) -> None:
    ours, theirs = both_tokenizers
    # llama.cpp leaves out the normalization that Qwen2's own tokenizer does first, and takes
    # user-defined tokens such as <tool_call> from any text; ours takes them where allowed.
    text += "<tool_call>" if allow_special else ""
    text = unicodedata.normalize("NFC", text)
    expected = theirs.tokenize(text, allow_special=allow_special)
    assert ours.encode(text, allow_special=allow_special) == expected


def test_errors_of_the_wrapper_say_why(tmp_path: Path) -> None:
    with pytest.raises(llama.LlamaError, match=r"can't load .*nothing\.gguf: .*failed to open"):
        llama.LlamaCpp(tmp_path / "nothing.gguf")
    with pytest.raises(llama.LlamaError, match=r"can't quantize .*failed to open"):
        llama.quantize(tmp_path / "nothing.gguf", tmp_path / "out.gguf", "q4_0")
