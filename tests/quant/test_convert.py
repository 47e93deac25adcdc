"""quantize(): what goes in comes out, in every type, from folders and from GGUF files."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import safetensors

from edgeqwen.errors import OptionError
from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant import TYPES, QuantizeReport, quantize
from edgeqwen.quant.names import to_hf_name
from edgeqwen.quant.recipe import fitting, recipe_named
from tests.hf_checkpoints import write_checkpoint
from tests.hf_tokenizers import CHAT_TEMPLATE

Floats = npt.NDArray[np.float32]
# Recipes whose types the gguf package writes as the converter does, bit for bit.
PLAIN = ("f32", "f16", "bf16", "q8_0", "q4_0")


def hf_weights(folder: Path) -> dict[str, Floats]:
    """Returns a checkpoint's weights through the safetensors library."""
    found: dict[str, Floats] = {}
    for path in folder.glob("*.safetensors"):
        entries: Any = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        for name, entry in entries:
            data = bytes(entry["data"])
            if entry["dtype"] == "BF16":
                x = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                x = np.frombuffer(data, {"F16": np.float16, "F32": np.float32}[entry["dtype"]])
            found[name] = x.astype(np.float32).reshape(entry["shape"])
    return found


def gguf_tensor(reader: gguf.GGUFReader, name: str) -> gguf.ReaderTensor:
    (found,) = (tensor for tensor in reader.tensors if tensor.name == name)
    return found


@pytest.mark.parametrize("type", PLAIN)
@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bf16"},
        {"dtype": "f16", "tied": False, "sharded": True},
        {"dtype": "f32", "config_generation": 2, "tokenizer": "small-slow"},
    ],
    ids=["bf16", "f16", "f32"],
)
def test_from_hugging_face(tmp_path: Path, type: str, options: dict[str, Any]) -> None:
    folder, path = write_checkpoint(tmp_path / "Tiny-Model", **options), tmp_path / "x.gguf"
    report = quantize(folder, path, type)
    weights = hf_weights(folder)
    reader = gguf.GGUFReader(path)
    with GgufFile.open(path) as file:
        config = file.config()
        assert config.tie_word_embeddings is options.get("tied", True)
        assert set(file.tensors) == set(config.expected_tensors())
        assert len(file.tensors) == len(weights)
        for name, tensor in file.tensors.items():
            expected = weights[to_hf_name(name)]
            found = gguf_tensor(reader, name)
            kind = gguf.GGMLQuantizationType(int(tensor.type))
            blocks = gguf.quants.quantize(expected, kind)
            assert found.tensor_type == kind
            assert tensor.shape == expected.shape
            assert found.data.tobytes() == blocks.tobytes() == file.data(name).tobytes()
    assert report.type == type
    assert report.n_bytes == path.stat().st_size
    assert report.n_weights == sum(x.size for x in weights.values())
    n_bits = sum(t.n_bytes for t in report.tensors) * 8
    assert report.bits_per_weight == pytest.approx(n_bits / report.n_weights)
    assert {t.source_type.name.lower() for t in report.tensors} == {options["dtype"]}
    assert report.notes == ()
    assert report.seconds > 0


@pytest.mark.parametrize("type", TYPES)
def test_every_recipe(tmp_path: Path, type: str) -> None:
    from edgeqwen.quant.encode import encode

    sizes = {"n_layers": 8, "hidden_size": 256, "intermediate_size": 320}
    folder, path = write_checkpoint(tmp_path / "a", dtype="f32", **sizes), tmp_path / "x.gguf"
    report = quantize(folder, path, type)
    assert report.type == type
    weights = hf_weights(folder)
    with GgufFile.open(path) as file:
        config = file.config()
        recipe = recipe_named(type)
        assert file.metadata["general.file_type"] == recipe.file_type
        for name, tensor in file.tensors.items():
            wanted = recipe.wanted(name, tensor.shape, config)
            assert tensor.type is fitting(wanted, tensor.shape[-1])
            expected = np.empty(tensor.n_bytes, np.uint8)
            assert encode(tensor.type, weights[to_hf_name(name)], expected)
            assert file.data(name).tobytes() == expected.tobytes()


def test_metadata(tmp_path: Path) -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
    folder = write_checkpoint(tmp_path / "Tiny-Model", rope_scaling=yarn, rms_norm_eps=1e-5)
    quantize(folder, tmp_path / "x.gguf", "q4_0")
    reader = gguf.GGUFReader(tmp_path / "x.gguf")
    found = {key: field.contents() for key, field in reader.fields.items()}
    tokens = found.pop("tokenizer.ggml.tokens")
    end, text_end = tokens.index("<|im_end|>"), tokens.index("<|endoftext|>")
    assert len(tokens) == len(found.pop("tokenizer.ggml.token_type")) == 448
    assert found.pop("tokenizer.ggml.merges")[0].count(" ") == 1
    assert found.pop("qwen2.attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    for key, value in {"temp": 0.7, "top_p": 0.8, "penalty_repeat": 1.05}.items():
        assert found.pop(f"general.sampling.{key}") == pytest.approx(value)
    assert found == {
        "GGUF.version": 3,
        "GGUF.tensor_count": 26,
        "GGUF.kv_count": 31,
        "general.architecture": "qwen2",
        "general.type": "model",
        "general.name": "Tiny-Model",
        "general.sampling.top_k": 20,
        "general.size_label": "91K",
        "general.file_type": gguf.LlamaFileType.MOSTLY_Q4_0,
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        "qwen2.block_count": 2,
        "qwen2.context_length": 16384,
        "qwen2.embedding_length": 64,
        "qwen2.feed_forward_length": 96,
        "qwen2.attention.head_count": 4,
        "qwen2.attention.head_count_kv": 2,
        "qwen2.rope.freq_base": 1e6,
        "qwen2.rope.scaling.type": "yarn",
        "qwen2.rope.scaling.factor": 4.0,
        "qwen2.rope.scaling.original_context_length": 4096,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.eos_token_id": end,
        "tokenizer.ggml.padding_token_id": text_end,
        "tokenizer.ggml.bos_token_id": text_end,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


@pytest.mark.parametrize("middle", PLAIN)
@pytest.mark.parametrize("last", PLAIN)
def test_from_gguf(tmp_path: Path, middle: str, last: str) -> None:
    folder = write_checkpoint(tmp_path / "a", tied=False)
    first, second = tmp_path / "1.gguf", tmp_path / "2.gguf"
    quantize(folder, first, middle)
    report = quantize(first, second, last)
    with GgufFile.open(first) as source, GgufFile.open(second) as found:
        assert source.config() == found.config()
        changed = {"general.file_type"}
        assert {k: v for k, v in found.metadata.items() if k not in changed} == {
            k: v for k, v in source.metadata.items() if k not in changed
        }
        assert list(source.tensors) == list(found.tensors)
        for name, tensor in found.tensors.items():
            before, after = source.tensors[name].type, tensor.type
            if before == after:
                assert found.data(name).tobytes() == source.data(name).tobytes()
                continue
            floats = gguf_floats(source, name)
            blocks = gguf.quants.quantize(floats, gguf.GGMLQuantizationType(int(after)))
            assert found.data(name).tobytes() == blocks.tobytes()
    if middle.startswith("q"):
        assert "the source is quantized already" in report.notes[0]
    if middle == last:
        assert first.read_bytes() == second.read_bytes()


def gguf_floats(file: GgufFile, name: str) -> Floats:
    tensor = file.tensors[name]
    rows = file.data(name).reshape(-1, tensor.type.n_bytes(tensor.shape[-1:]))
    floats = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(int(tensor.type)))
    return np.asarray(floats, np.float32).reshape(tensor.shape)


def test_rows_that_fill_no_blocks(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", intermediate_size=100)
    report = quantize(folder, tmp_path / "x.gguf", "q4_0")
    assert report.notes == (
        "2 matrices are not of the type meant for them: blk.0.ffn_down.weight is F16, because its "
        "100 columns are not a multiple of 32, which Q4_0 needs; padding with zeros (--pad-ffn) "
        "makes them fit",
    )


@pytest.mark.parametrize("recipe", ["q4_k_m", "iq4_xs"])
def test_blocks_of_the_type_at_hand_are_copied(tmp_path: Path, recipe: str) -> None:
    folder = write_checkpoint(tmp_path / "a", n_layers=1, hidden_size=256, intermediate_size=512)
    first, second = tmp_path / "1.gguf", tmp_path / "2.gguf"
    quantize(folder, first, recipe)
    quantize(first, second, recipe)
    assert first.read_bytes() == second.read_bytes()


def test_types_of_tensors(tmp_path: Path) -> None:
    folder, path = write_checkpoint(tmp_path / "a", dtype="f32"), tmp_path / "x.gguf"
    tensor_types = {r"blk\.0\..*attn_[qk]": "f16", "attn": "q8_0", "token": "bf16"}
    report = quantize(folder, path, "q4_0", tensor_types=tensor_types)
    weights = hf_weights(folder)
    with GgufFile.open(path) as file:
        types = {name: tensor.type.name for name, tensor in file.tensors.items()}
        embedding = weights["model.embed_tokens.weight"]
        bits = gguf.quants.quantize(embedding, gguf.GGMLQuantizationType.BF16)
        assert file.data("token_embd.weight").tobytes() == bits.tobytes()
    assert {tensor.name: tensor.type.name for tensor in report.tensors} == types
    for part, kinds in {
        "attn_q.weight": ("F16", "Q8_0"),
        "attn_k.weight": ("F16", "Q8_0"),
        "attn_k.bias": ("F32", "F32"),
        "attn_v.weight": ("Q8_0", "Q8_0"),
        "attn_norm.weight": ("F32", "F32"),
        "ffn_up.weight": ("Q4_0", "Q4_0"),
    }.items():
        assert (types[f"blk.0.{part}"], types[f"blk.1.{part}"]) == kinds
    assert types["token_embd.weight"] == "BF16"


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_threads_do_not_change_the_result(tmp_path: Path, n_threads: int) -> None:
    # Several tasks for one tensor, which threads finish in any order.
    folder = write_checkpoint(tmp_path / "a", vocab_size=20_000, dtype="f32")
    quantize(folder, tmp_path / "1.gguf", "q8_0", n_threads=n_threads)
    with GgufFile.open(tmp_path / "1.gguf") as file:
        embedding = hf_weights(folder)["model.embed_tokens.weight"]
        blocks = gguf.quants.quantize(embedding, gguf.GGMLQuantizationType.Q8_0)
        assert file.data("token_embd.weight").tobytes() == blocks.tobytes()


def test_progress(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", vocab_size=20_000)
    calls: list[tuple[int, int]] = []
    report = quantize(
        folder,
        tmp_path / "x.gguf",
        "q8_0",
        progress=lambda done, total: calls.append((done, total)),
    )
    done = [call[0] for call in calls]
    assert {total for _, total in calls} == {report.n_bytes}
    assert done == sorted(done)
    assert done[0] < done[-1] == report.n_bytes
    assert len(done) > 20


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, True, "2", 5000])
def test_senseless_thread_counts(tmp_path: Path, n_threads: Any) -> None:
    with pytest.raises(OptionError, match=r"n_threads is .*, expected a whole number from 1"):
        quantize(tmp_path, tmp_path / "x.gguf", n_threads=n_threads)


def test_importing_does_not_import_numba() -> None:
    code = "import sys, edgeqwen.quant; sys.exit('numba' in sys.modules or 'gguf' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_report_is_what_the_package_exports(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    assert isinstance(quantize(folder, tmp_path / "x.gguf"), QuantizeReport)
