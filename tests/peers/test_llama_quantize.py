"""Recipes give every tensor the type that llama.cpp's quantizer gives it, on true shapes.

llama.cpp is given models of two rows a matrix, and rows that are as long as the true ones modulo
256, the largest block: of a shape, only that decides about types. Heads and layers are the true
ones. ``python -m tests.peers.test_llama_quantize`` writes down what it chose.
"""

import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from edgeqwen.config import ModelConfig
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant import plan, quantize
from edgeqwen.quant.gguf_writer import GgufWriter, PlannedTensor
from edgeqwen.quant.recipe import recipe_named
from tests.hf_checkpoints import write_checkpoint
from tests.quant.recipe_cases import MODELS, RECIPES, TABLE, our_types, read_table, summary

pytest.importorskip("llama_cpp", reason="compares with llama.cpp (llama-cpp-python)")
pytestmark = pytest.mark.peers

from benchmarks import llama  # noqa: E402  (imports llama_cpp)

llama_cpp: Any = llama.llama_cpp


def write_sketch(path: Path, model: ModelConfig) -> None:
    """Writes all tensors of a model, small and all zeros, with a vocabulary of two tokens."""
    vocabulary = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "b"]}
    tensors = [
        PlannedTensor(name, GgmlType.BF16, (2, 256 + shape[1] % 256))
        if len(shape) > 1
        else PlannedTensor(name, GgmlType.F32, (32,))
        for name, shape in model.expected_tensors().items()
    ]
    with GgufWriter(path, {**model.to_gguf(), **vocabulary}, tensors) as writer:
        for tensor in tensors:
            writer.write(bytes(tensor.n_bytes))
            writer.end_tensor()


def llama_quantize(
    source: Path, output: Path, recipe: str, tensor_types: Mapping[str, str]
) -> None:
    """Lets llama.cpp quantize a file, to types by expression where a name holds it."""
    name, plus, _ = recipe.partition("+")
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = 1
    parameters.ftype = recipe_named(name).file_type
    nothing = (ctypes.c_float * 1)(1.0)
    # Ends with an entry without a name.
    imatrix = (llama_cpp.llama_model_imatrix_data * 2)()
    imatrix[0].name, imatrix[0].size = b"of no tensor", 1
    imatrix[0].data = ctypes.cast(nothing, ctypes.POINTER(ctypes.c_float))
    if plus:
        parameters.imatrix = imatrix
    overrides = (llama_cpp.llama_model_tensor_override * (len(tensor_types) + 1))()
    for entry, (pattern, type) in zip(overrides, tensor_types.items(), strict=False):
        entry.pattern, entry.type = pattern.encode(), GgmlType[type.upper()]
    if tensor_types:
        parameters.tt_overrides = overrides
    code = llama_cpp.llama_model_quantize(
        str(source).encode(), str(output).encode(), ctypes.byref(parameters)
    )
    if code != 0:
        raise llama.LlamaError(f"llama.cpp can't quantize {source} to {recipe} (code {code})")


def their_types(
    source: Path, recipe: str, tensor_types: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns the types that llama.cpp gives the tensors of a file."""
    output = source.with_suffix(".out")
    llama_quantize(source, output, recipe, tensor_types or {})
    with GgufFile.open(output) as file:
        assert file.metadata["general.file_type"] == recipe_named(recipe.split("+")[0]).file_type
        found = {name: tensor.type.name for name, tensor in file.tensors.items()}
    output.unlink()
    return found


@pytest.fixture(scope="module", params=MODELS)
def sketch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("sketch") / f"{request.param}.gguf"
    write_sketch(path, MODELS[request.param])
    return path


@pytest.mark.parametrize("recipe", RECIPES)
def test_types(sketch: Path, recipe: str) -> None:
    theirs = their_types(sketch, recipe)
    assert our_types(recipe, MODELS[sketch.stem]) == theirs
    assert read_table()[sketch.stem, recipe] == summary(theirs)


@pytest.mark.parametrize(
    "tensor_types",
    [
        {"attn_v": "q8_0", "ffn_down": "iq4_nl"},
        {r"blk\.1\.attn_q": "q8_0", "attn_[qk]": "q5_1", ".": "q4_1"},
        {r"attn_(q|output)\.weight$": "f16", "token_embd": "q3_k"},
    ],
)
def test_the_first_expression_decides(tmp_path: Path, tensor_types: dict[str, str]) -> None:
    source = tmp_path / "x.gguf"
    quantize(write_checkpoint(tmp_path / "x"), source, "f16")
    ours = plan(source, "q4_k_m", tensor_types=tensor_types)
    theirs = their_types(source, "q4_k_m", tensor_types)
    assert {tensor.name: tensor.type.name for tensor in ours.tensors} == theirs


@pytest.mark.parametrize("type", ["f32", "q8_0"])
def test_llama_cpp_reads_padded_models(tmp_path: Path, type: str) -> None:
    folder = write_checkpoint(tmp_path / "x", dtype="f32", tied=False)
    logits = []
    for pad_ffn in (False, True):
        path = tmp_path / f"{pad_ffn}.gguf"
        quantize(folder, path, type, pad_ffn=pad_ffn)
        with llama.LlamaCpp(path, n_threads=1, n_context=64, all_logits=True) as model:
            logits.append(model.logits(range(40)))
    plain, padded = logits
    assert plain.std() > 1
    # Sums over longer rows are taken in another order.
    assert np.abs(plain - padded).max() < 1e-4


def table() -> Iterator[str]:
    with TemporaryDirectory() as folder:
        for name, model in MODELS.items():
            path = Path(folder) / f"{name}.gguf"
            write_sketch(path, model)
            for recipe in RECIPES:
                yield f"{name} {recipe} {summary(their_types(path, recipe))}\n"


if __name__ == "__main__":
    TABLE.write_text("".join(table()), "utf-8")
