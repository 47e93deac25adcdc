"""Importance matrices against llama.cpp: what it collects, reads and quantizes with."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeqwen
from edgeqwen.importance import collect
from edgeqwen.quant import quantize
from edgeqwen.quant.imatrix import Imatrix
from tests.hf_checkpoints import write_checkpoint
from tests.oracles.blocks import read_weights, tensor_types

pytest.importorskip("llama_cpp", reason="compares with llama.cpp (llama-cpp-python)")
pytestmark = pytest.mark.peers

from benchmarks import llama  # noqa: E402  (imports llama_cpp)

# Whole superblocks, for the types that llama.cpp refuses to make without importance.
MODEL: dict[str, Any] = {
    "n_layers": 2,
    "hidden_size": 256,
    "intermediate_size": 512,
    "n_heads": 4,
    "n_kv_heads": 2,
    "tied": False,
    "dtype": "f32",
}
WINDOW, N_WINDOWS = 64, 2
F32, MUL_MAT_TOKENS = 0, 16  # it looks at products of so many tokens or more


class GgmlTensor(ctypes.Structure):
    """``ggml_tensor`` up to the name, as ggml.h has it."""


GgmlTensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(GgmlTensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


class Collector:
    """What llama.cpp's imatrix tool does in its callback: sums of squares by tensor name."""

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}
        self.counts: dict[str, int] = {}
        # Kept alive: the library holds its address.
        self.callback = llama.llama_cpp.ggml_backend_sched_eval_callback(self._see)

    def _see(self, address: int, asks: bool, _: Any) -> bool:
        tensor = ctypes.cast(address, ctypes.POINTER(GgmlTensor)).contents
        if not (tensor.src[0] and tensor.src[1]):
            return False
        name, x = tensor.src[0].contents.name.decode(), tensor.src[1].contents
        is_weight = name.endswith(".weight") and name.startswith(("blk.", "output."))
        if not is_weight or x.type != F32 or x.ne[1] < MUL_MAT_TOKENS:
            return False
        if not asks:
            assert x.nb[0] == 4
            floats = (ctypes.c_float * (x.nb[1] // 4 * x.ne[1])).from_address(x.data)
            rows = np.frombuffer(floats, np.float32).reshape(x.ne[1], -1)[:, : x.ne[0]]
            squares = (rows.astype(np.float64) ** 2).sum(axis=0)
            self.sums[name] = self.sums.get(name, 0) + squares
            self.counts[name] = self.counts.get(name, 0) + len(rows)
        return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imatrix")
    write_checkpoint(folder / "hf", **MODEL)
    quantize(folder / "hf", folder / "f32.gguf", "f32")
    return folder


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    ids: list[int] = np.random.default_rng(3).integers(0, 400, WINDOW * N_WINDOWS).tolist()
    return ids


@pytest.fixture(scope="module")
def ours(folder: Path, tokens: list[int]) -> Imatrix:
    with edgeqwen.load(folder / "f32.gguf", max_context=WINDOW, cache_type="f32") as model:
        return collect(model, tokens, context=WINDOW, output=True, dataset="a text")


def test_the_same_sums(
    folder: Path, tokens: list[int], ours: Imatrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    defaults = llama.llama_cpp.llama_context_default_params

    def watched() -> Any:
        parameters = defaults()
        parameters.cb_eval = collector.callback
        parameters.type_k = parameters.type_v = F32
        parameters.flash_attn_type = 0
        return parameters

    monkeypatch.setattr(llama.llama_cpp, "llama_context_default_params", watched)
    path = folder / "f32.gguf"
    with llama.LlamaCpp(path, n_threads=1, n_context=WINDOW, all_logits=True) as model:
        for begin in range(0, len(tokens), WINDOW):
            model.logits(tokens[begin : begin + WINDOW])
    assert collector.sums.keys() == ours.entries.keys()
    for name, entry in ours.entries.items():
        assert collector.counts[name] == entry.count == len(tokens)
        np.testing.assert_allclose(
            entry.in_sum2, collector.sums[name], rtol=1e-4, atol=0, err_msg=name
        )


def quantized(source: Path, output: Path, type: int, imatrix: Imatrix | None) -> None:
    """Quantizes with llama.cpp's own encoder, which gets the importance as llama-quantize does."""
    parameters = llama.llama_cpp.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype = 1, type
    if imatrix is not None:
        kind = llama.llama_cpp.llama_model_imatrix_data
        entries = (kind * (len(imatrix.entries) + 1))()  # the last one has no name
        kept = {name: imatrix.importance(name) for name in imatrix.entries}
        for entry, (name, mean) in zip(entries, kept.items(), strict=False):
            assert mean is not None
            entry.name, entry.size = name.encode(), len(mean)
            entry.data = mean.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        parameters.imatrix = entries
    code = llama.llama_cpp.llama_model_quantize(
        str(source).encode(), str(output).encode(), ctypes.byref(parameters)
    )
    if code != 0:
        raise llama.LlamaError(f"llama.cpp can't quantize {source} (code {code})")


def test_llama_cpp_quantizes_with_it(folder: Path, ours: Imatrix, tmp_path: Path) -> None:
    """Through the file: into a type that it makes with an importance matrix only, and better."""
    ours.write(tmp_path / "imatrix.gguf")
    imatrix = Imatrix.read(tmp_path / "imatrix.gguf")
    source, output = folder / "f32.gguf", tmp_path / "out.gguf"
    q2, iq2 = 10, llama.llama_cpp.LLAMA_FTYPE_MOSTLY_IQ2_XXS
    with pytest.raises(llama.LlamaError, match="importance matrix"):
        quantized(source, output, iq2, None)
    quantized(source, output, iq2, imatrix)
    assert "IQ2_XXS" in tensor_types(output).values()
    assert q2 == llama.llama_cpp.LLAMA_FTYPE_MOSTLY_Q2_K
    exact, name = read_weights(source), "blk.1.ffn_down.weight"
    weight = imatrix.importance(name)
    errors = []
    for with_it in (None, imatrix):
        quantized(source, output, q2, with_it)
        difference = read_weights(output)[name] - exact[name]
        errors.append(float((difference.astype(np.float64) ** 2 * weight).sum()))
    assert errors[1] < errors[0]


@pytest.fixture
def ggml() -> ctypes.CDLL:
    folder = Path(llama.llama_cpp.__file__).parent / "lib"
    found = sorted(folder.glob("*ggml-base.*"))
    if not found:
        pytest.skip("llama-cpp-python has no ggml-base library")
    library = ctypes.CDLL(str(found[0]))
    for name, result in (
        ("gguf_init_from_file", ctypes.c_void_p),
        ("gguf_find_key", ctypes.c_int64),
        ("gguf_get_val_str", ctypes.c_char_p),
        ("gguf_get_arr_str", ctypes.c_char_p),
        ("gguf_get_arr_n", ctypes.c_size_t),
        ("gguf_get_val_u32", ctypes.c_uint32),
        ("gguf_get_n_tensors", ctypes.c_int64),
        ("gguf_get_tensor_name", ctypes.c_char_p),
        ("gguf_get_tensor_size", ctypes.c_size_t),
    ):
        getattr(library, name).restype = result
    return library


class InitParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def test_llama_cpp_s_reader_reads_the_file(
    ggml: ctypes.CDLL, ours: Imatrix, tmp_path: Path
) -> None:
    """Its loader asks for these keys, of these types, and for these pairs of F32 tensors.

    It finds ``imatrix.datasets`` by ``gguf_get_arr_type(...) == GGUF_TYPE_STRING``, the counts by
    ``gguf_get_val_u32``, which ends the program for any other type, and the entries by names that
    end in ``.in_sum2`` and ``.counts``.
    """
    path = tmp_path / "imatrix.gguf"
    ours.write(path)
    opened = ggml.gguf_init_from_file(str(path).encode(), InitParams(True, None))
    assert opened
    file = ctypes.c_void_p(opened)

    def key(name: str) -> ctypes.c_int64:
        found = ggml.gguf_find_key(file, name.encode())
        assert found >= 0, name
        return ctypes.c_int64(found)

    try:
        assert ggml.gguf_get_val_str(file, key("general.type")) == b"imatrix"
        string = 8
        assert ggml.gguf_get_arr_type(file, key("imatrix.datasets")) == string
        assert ggml.gguf_get_arr_n(file, key("imatrix.datasets")) == 1
        assert ggml.gguf_get_arr_str(file, key("imatrix.datasets"), ctypes.c_size_t(0)) == b"a text"
        assert ggml.gguf_get_val_u32(file, key("imatrix.chunk_count")) == N_WINDOWS
        assert ggml.gguf_get_val_u32(file, key("imatrix.chunk_size")) == WINDOW
        sizes = {}
        for i in map(ctypes.c_int64, range(ggml.gguf_get_n_tensors(file))):
            assert ggml.gguf_get_tensor_type(file, i) == F32
            name = ggml.gguf_get_tensor_name(file, i).decode()
            sizes[name] = ggml.gguf_get_tensor_size(file, i)
        expected = {f"{name}.in_sum2": e.in_sum2.nbytes for name, e in ours.entries.items()}
        assert sizes == expected | {f"{name}.counts": 4 for name in ours.entries}
    finally:
        ggml.gguf_free(file)
