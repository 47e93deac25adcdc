"""Weights in memory: which tensors stand together, what their tiles hold, and what is refused."""

import ctypes
import gc
import itertools
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeqwen.errors import ClosedError, UnsupportedError
from edgeqwen.executor import Team
from edgeqwen.formats import FORMATS, Q4_0, Q8_0, packing
from edgeqwen.gguf_file import GgufFile
from edgeqwen.model import weights as weights_module
from edgeqwen.model.weights import Matrix, Weights
from tests.formats.packing import unpack
from tests.gguf_samples import write_tiny_gguf
from tests.isas import NATIVE
from tests.resident import resident_bytes

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "head_dim": 32,
    "n_heads": 2,
    "n_kv_heads": 1,
    "vocab_size": 331,
}


# Rows of whole superblocks.
WIDE = {"hidden_size": 256, "intermediate_size": 256, "n_heads": 8}


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """Writes a tiny model, and returns its packed weights, the file and the expected values."""
    held: list[Any] = []

    def make(*, pack: bool = True, **options: Any) -> tuple[Weights, GgufFile, dict[str, Any]]:
        values = write_tiny_gguf(tmp_path / "tiny.gguf", **{**SIZES, **options})
        file = GgufFile.open(tmp_path / "tiny.gguf")
        weights = Weights(file, file.config())
        held.extend([weights, file])
        if pack:
            fill(weights)
        return weights, file, values

    yield make
    for each in held:
        each.close()


def fill(weights: Weights, progress: Callable[[int, int], None] | None = None) -> None:
    team = Team(2)
    try:
        weights.start_packing(team)
        weights.wait(progress)
    finally:
        team.close()


Make = Callable[..., tuple[Weights, GgufFile, dict[str, Any]]]


def unpacked(matrix: Matrix) -> np.ndarray:
    """Returns a matrix as kernels see it: float32 [rows of all tensors, n_columns]."""
    memory = (ctypes.c_uint8 * matrix.n_bytes).from_address(matrix.address)
    tiles = np.ctypeslib.as_array(memory)
    tiles = tiles.reshape(matrix.n_tiles, matrix.row_tiles, matrix.format.tile_bytes)
    return unpack(matrix.format, NATIVE, tiles)[: matrix.n_rows]


def check(matrix: Matrix, values: dict[str, Any]) -> None:
    expected = np.concatenate([values[name] for name in matrix.names])
    np.testing.assert_array_equal(unpacked(matrix), expected)


# Of most formats, tests/formats packs tiles, too.
EVERY_FORMAT = [
    f if f.name in ("F16", "Q4_0", "Q6_K") else pytest.param(f, marks=pytest.mark.thorough)
    for f in FORMATS.values()
]


@pytest.mark.parametrize("format_", EVERY_FORMAT, ids=lambda f: f.name)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_every_tensor_is_packed(opened: Make, format_: Any, tied: bool) -> None:
    sizes = WIDE if format_.tile_blocks > 1 else {}
    weights, _, values = opened(types=format_.name, tied=tied, **sizes)
    assert weights.formats == {format_}
    matrices = [weights.embedding, weights.head]
    for i, layer in enumerate(weights.layers):
        (qkv,), (gate_up,) = layer.qkv, layer.gate_up  # one matrix, since of one format
        name = f"blk.{i}"
        assert qkv.names == tuple(f"{name}.attn_{n}.weight" for n in "qkv")
        assert gate_up.names == (f"{name}.ffn_gate.weight", f"{name}.ffn_up.weight")
        assert (qkv.row, qkv.n_rows) == (0, 320 if sizes else 128)
        matrices += [qkv, layer.o_proj, gate_up, layer.down_proj]
        biases = [values[f"{name}.attn_{n}.bias"] for n in "qkv"]
        np.testing.assert_array_equal(layer.qkv_bias, np.concatenate(biases))
        np.testing.assert_array_equal(layer.attn_norm, values[f"{name}.attn_norm.weight"])
        np.testing.assert_array_equal(layer.ffn_norm, values[f"{name}.ffn_norm.weight"])
    np.testing.assert_array_equal(weights.output_norm, values["output_norm.weight"])
    for matrix in matrices:
        check(matrix, values)
    assert (weights.head == weights.embedding) is tied
    assert weights.head.names == (("token_embd" if tied else "output") + ".weight",)


def test_matrices_lie_apart_and_aligned(opened: Make) -> None:
    weights, _, _ = opened(types="Q4_0", tied=False)
    matrices = {weights.embedding, weights.head}
    for layer in weights.layers:
        matrices |= {*layer.qkv, layer.o_proj, *layer.gate_up, layer.down_proj}
    ordered = sorted(matrices, key=lambda m: m.address)
    assert all(m.address % 64 == 0 for m in ordered)
    for before, after in itertools.pairwise(ordered):
        assert before.address + before.n_bytes <= after.address
    assert ordered[-1].address + ordered[-1].n_bytes <= ordered[0].address + weights.n_bytes


@pytest.mark.parametrize(
    ("types", "runs"),
    [
        # As recipes mix them: a better V among 4-bit Q and K.
        ({"q": "Q4_0", "k": "Q4_0", "v": "Q8_0"}, [("qk", 0, 96), ("v", 96, 32)]),
        ({"q": "Q8_0", "k": "Q4_0", "v": "Q4_0"}, [("q", 0, 64), ("kv", 64, 64)]),
        (
            {"q": "Q4_0", "k": "Q8_0", "v": "Q4_0"},
            [("q", 0, 64), ("k", 64, 32), ("v", 96, 32)],
        ),
    ],
)
def test_a_run_of_one_format_is_one_matrix(
    opened: Make, types: dict[str, str], runs: list[tuple[str, int, int]]
) -> None:
    named = {f"blk.{i}.attn_{n}": kind for i in range(2) for n, kind in types.items()}
    weights, _, values = opened(types=named)
    for i, layer in enumerate(weights.layers):
        found = [(m.names, m.row, m.n_rows) for m in layer.qkv]
        assert found == [
            (tuple(f"blk.{i}.attn_{n}.weight" for n in names), row, n_rows)
            for names, row, n_rows in runs
        ]
        for matrix, (names, _, _) in zip(layer.qkv, runs, strict=True):
            assert matrix.format is {"Q4_0": Q4_0, "Q8_0": Q8_0}[types[names[0]]]
            check(matrix, values)


def test_large_tensors_are_packed_in_parts(opened: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile at a time, by any thread, gives the same."""
    monkeypatch.setattr(packing, "JOB_BYTES", 1)
    weights, _, values = opened(types="Q8_0")
    for matrix in (weights.embedding, *weights.layers[1].qkv):
        check(matrix, values)


def test_progress_counts_the_file_s_bytes_and_pages_are_released(
    opened: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, file, _ = opened(types="Q4_0", tied=False, pack=False)
    matrices = [t for t in file.tensors.values() if len(t.shape) == 2]
    released: list[str] = []
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(file, "release", released.append)
    fill(weights, lambda done, total: steps.append((done, total)))
    total = sum(t.n_bytes for t in matrices)
    assert {t for _, t in steps} == {total}
    assert steps[-1][0] == total
    assert sorted(done for done, _ in steps) == [done for done, _ in steps]
    assert sorted(released) == sorted(t.name for t in matrices)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_norms_and_biases_may_be_shorter_floats(tmp_path: Path, kind: str) -> None:
    number = gguf.GGMLQuantizationType[kind]
    values = write_tiny_gguf(tmp_path / "plain.gguf", **SIZES)
    path = tmp_path / "short.gguf"
    _rewrite_vectors(path, values, tmp_path / "plain.gguf", number)
    with GgufFile.open(path) as file:
        weights = Weights(file, file.config())
        for name, found in (
            ("output_norm.weight", weights.output_norm),
            ("blk.1.ffn_norm.weight", weights.layers[1].ffn_norm),
        ):
            data = gguf.quants.quantize(values[name], number)
            np.testing.assert_array_equal(found, gguf.quants.dequantize(data, number))
        weights.close()


def _rewrite_vectors(
    path: Path, values: dict[str, Any], source: Path, number: gguf.GGMLQuantizationType
) -> None:
    """Writes the model once more, with its vectors in another type."""
    writer = gguf.GGUFWriter(path, "qwen2")
    for field in gguf.GGUFReader(source).fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            sub = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub)
    for name, tensor in values.items():
        if tensor.ndim == 1:
            writer.add_tensor(name, gguf.quants.quantize(tensor, number), raw_dtype=number)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_type_that_kernels_do_not_run_is_refused(opened: Make, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        opened(types={"blk.1.attn_output": "MXFP4"})
    assert str(caught.value) == (
        f"{tmp_path}/tiny.gguf: blk.1.attn_output.weight is MXFP4, which this version can't run; "
        f"it runs {', '.join(f.name for f in FORMATS.values())}: get the model in one of these, or "
        "convert the original checkpoint with edgeqwen quantize"
    )


@pytest.mark.parametrize(
    ("sizes", "name", "size"),
    [
        ({"hidden_size": 72}, "hidden_size", 72),
        ({"intermediate_size": 100}, "intermediate_size", 100),
        ({"head_dim": 48}, "head_dim", 48),
    ],
)
def test_sizes_that_tiles_can_not_hold_are_refused(
    opened: Make, tmp_path: Path, sizes: dict[str, int], name: str, size: int
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        opened(**sizes)
    assert str(caught.value) == (
        f"{tmp_path}/tiny.gguf: {name} is {size}, which is not a multiple of 32; this version "
        "can't run such a model"
    )


def test_what_packing_compiles(opened: Make) -> None:
    weights, _, _ = opened(types={"token_embd": "Q8_0", "blk.0.ffn_up": "Q4_0"}, pack=False)
    names = {("pack", "F32"), ("pack", "Q8_0"), ("pack", "Q4_0")}
    assert set(weights.kernels()) == names
    for compiled in weights.kernels().values():
        compiled()


def test_more_than_the_machine_holds_is_refused(
    opened: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, file, _ = opened(pack=False)
    monkeypatch.setattr(weights_module, "physical_memory", lambda: 1000)
    with pytest.raises(UnsupportedError, match=r"the weights need 0\.0 GB .* smaller type"):
        fill(weights)
    assert file.path.name == "tiny.gguf"


def test_closing_ends_packing(opened: Make) -> None:
    weights, _, _ = opened(types="Q4_0", pack=False)
    team = Team(2)
    weights.start_packing(team)
    weights.stop_packing()
    with pytest.raises(ClosedError, match="closed while it was loaded"):
        weights.wait()
    team.close()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what is mapped")
def test_what_was_read_of_the_file_is_given_up(opened: Make, tmp_path: Path) -> None:
    weights, file, _ = opened(types="Q4_0", pack=False, vocab_size=40_000)
    for name in file.tensors:
        file.data(name).sum()
    before = resident_bytes(tmp_path / "tiny.gguf")
    assert before >= sum(tensor.n_bytes for tensor in file.tensors.values())
    team = Team(1)  # of two, one may still read what the other gives up
    weights.start_packing(team)
    assert weights._packing is not None
    weights._packing.wait()
    # All but the pages that jobs share, and what they don't pack.
    assert resident_bytes(tmp_path / "tiny.gguf") < before / 2
    team.close()


def test_any_number_of_threads_may_wait(opened: Make) -> None:
    weights, _, _ = opened(types="Q4_0", pack=False)
    team, errors = Team(2), []

    def wait() -> None:
        try:
            weights.wait()
        except BaseException as error:
            errors.append(error)

    weights.start_packing(team)
    waiting = [threading.Thread(target=wait) for _ in range(8)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert errors == []
    weights.wait()
    team.close()


def test_what_nobody_packs_is_not_waited_for(opened: Make) -> None:
    weights, _, _ = opened(pack=False)
    with pytest.raises(AssertionError, match="nobody began to pack them"):
        weights.wait()


def test_a_late_thread_still_finds_the_tape_of_packing(opened: Make) -> None:
    """Until the team is closed, a thread may be asleep between the last chunk and the end."""
    weights, _, _ = opened(types="Q4_0")
    assert weights._packing is not None
    tape = weakref.ref(weights._packing._tape)
    gc.collect()
    assert tape() is not None
    weights.close()
    gc.collect()
    assert tape() is None
