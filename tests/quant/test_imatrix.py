"""Importance matrices: what they say of a model, how they add up, and the files they are in."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeqwen.errors import EdgeqwenError, OptionError
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.imatrix_parts import Entry
from tests.imatrix_samples import entry, legacy_bytes, sums, write_gguf_imatrix

Q, DOWN = "blk.0.attn_q.weight", "blk.0.ffn_down.weight"


def matrix(columns: dict[str, int], *, count: int = 1536, seed: int = 0, name: str = "") -> Imatrix:
    entries = {tensor: Entry(sums(n, seed), count) for tensor, n in columns.items()}
    return Imatrix(entries, count // 512, 512, (name,) if name else (), source=f"{name}.gguf")


def test_importance_is_the_mean_square() -> None:
    found = matrix({Q: 64}, count=1000).importance(Q)
    assert found is not None
    assert found.dtype == np.float32
    # As llama.cpp divides: in float32.
    np.testing.assert_array_equal(found, sums(64) / np.float32(1000))


def test_nothing_is_known_of_some_matrices() -> None:
    unknown = Imatrix({Q: Entry(sums(64), 0), DOWN: Entry(np.zeros(32, np.float32), 512)})
    assert unknown.importance(Q) is None
    assert unknown.importance(DOWN) is None
    assert unknown.importance("output.weight") is None
    assert Imatrix({}).n_tokens == 0
    # A single column may be zero.
    some = np.array([0, 1, 0], np.float32)
    np.testing.assert_array_equal(Imatrix({Q: Entry(some, 2)}).importance(Q), some / 2)


def test_check_against_a_model() -> None:
    columns = {"token_embd.weight": 64, "output.weight": 64, Q: 64, DOWN: 96}
    assert matrix({Q: 64, DOWN: 96}, name="a").check(columns, "m.gguf") == []
    assert matrix({Q: 64}, name="a").check(columns, "m.gguf") == [
        f"a.gguf says nothing of 1 of 4 matrices, the first is {DOWN}: their columns count alike"
    ]
    others = {"blk.9.attn_q.weight": 64, "blk.9.attn_k.weight": 64}
    assert matrix({Q: 64, DOWN: 96, **others}, name="a").check(columns, "m.gguf") == [
        "a.gguf has 2 entries that are no matrices of m.gguf, the first is blk.9.attn_q.weight: "
        "it may be another model's"
    ]
    with pytest.raises(OptionError) as error:
        matrix({DOWN: 64}, name="a").check(columns, "m.gguf")
    assert str(error.value) == (
        f"a.gguf: {DOWN} has 64 columns, but 96 in m.gguf: it is another model's; collect one from "
        "this model"
    )


def test_merged() -> None:
    first = matrix({Q: 64}, count=512, seed=1, name="a")
    second = matrix({Q: 64, DOWN: 96}, count=1000, seed=2, name="b")
    third = matrix({DOWN: 96}, count=24, seed=3, name="c")
    found = third.merged([first, second])
    np.testing.assert_allclose(found.entries[Q].in_sum2, sums(64, 1) + sums(64, 2), rtol=1e-6)
    np.testing.assert_allclose(found.entries[DOWN].in_sum2, sums(96, 2) + sums(96, 3), rtol=1e-6)
    assert found.entries[Q].in_sum2.dtype == np.float32
    assert [found.entries[name].count for name in (Q, DOWN)] == [1512, 1024]
    assert found.datasets == ("a", "b", "c")
    assert (found.chunk_count, found.chunk_size) == (1512 // 512, 512)
    assert first.merged([]) is first


def test_what_does_not_add_up() -> None:
    first = matrix({Q: 64}, name="a")
    with pytest.raises(OptionError) as error:
        matrix({Q: 96}, name="c").merged([first, matrix({DOWN: 96}, name="b")])
    assert str(error.value) == (
        f"c.gguf: {Q} has 96 columns, but 64 in a.gguf; combine those of one model"
    )
    huge = Imatrix({Q: Entry(np.array([1, 3e38], np.float32), 9)})
    with pytest.raises(EdgeqwenError, match=f"{Q}: the squares of the activations of column 1 add"):
        huge.merged([huge])


def test_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    written = Imatrix(
        {DOWN: Entry(sums(96), 1540), Q: Entry(sums(64, 1), 7)}, 3, 512, ("a.txt", "日本.txt")
    )
    written.write(path)
    found = Imatrix.read(path)
    assert list(found.entries) == sorted(written.entries)
    for name, expected in written.entries.items():
        np.testing.assert_array_equal(found.entries[name].in_sum2, expected.in_sum2)
        assert found.entries[name].in_sum2.dtype == np.float32
        assert found.entries[name].count == expected.count
        with pytest.raises(ValueError, match="read-only"):
            found.entries[name].in_sum2[0] = 0
    assert (found.chunk_count, found.chunk_size) == (3, 512)
    assert found.datasets == written.datasets
    assert found.source == str(path)
    Imatrix(written.entries).write(path)  # over what stands there, and without a dataset
    assert Imatrix.read(path).datasets == ()


def test_nothing_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    with pytest.raises(OptionError) as error:
        Imatrix({}).write(path)
    assert str(error.value) == f"{path}: there is nothing to write, for nothing was collected"
    assert not list(tmp_path.iterdir())


def test_written_as_llama_cpp_reads_it(tmp_path: Path) -> None:
    """Names, kinds and shapes that its loader asks for.

    ``common_imatrix_load`` takes pairs of F32 tensors, the names without their suffixes; and
    llama-quantize refuses files without all three keys, an array of strings and two uint32.
    """
    path = tmp_path / "imatrix.gguf"
    Imatrix({Q: Entry(sums(64), 1024), DOWN: Entry(sums(96), 1024)}, 2, 512, ("a.txt",)).write(path)
    reader = gguf.GGUFReader(path)
    kind = gguf.GGUFValueType
    keys = {
        "general.type": ("imatrix", [kind.STRING]),
        "imatrix.datasets": (["a.txt"], [kind.ARRAY, kind.STRING]),
        "imatrix.chunk_count": (2, [kind.UINT32]),
        "imatrix.chunk_size": (512, [kind.UINT32]),
    }
    own = [key for key in reader.fields if not key.startswith("GGUF.")]
    assert own == list(keys)
    for key, (value, types) in keys.items():
        assert (reader.fields[key].contents(), reader.fields[key].types) == (value, types)
    assert [tensor.name for tensor in reader.tensors] == [
        f"{Q}.in_sum2", f"{Q}.counts", f"{DOWN}.in_sum2", f"{DOWN}.counts",
    ]  # fmt: skip
    # Dimensions of 1 at the end are left out, as ggml does.
    assert [tensor.shape.tolist() for tensor in reader.tensors] == [[64], [1], [96], [1]]
    assert {tensor.tensor_type.name for tensor in reader.tensors} == {"F32"}
    np.testing.assert_array_equal(reader.tensors[2].data, sums(96))
    assert reader.tensors[3].data.tolist() == [1024]


def test_read_as_llama_cpp_writes_it(tmp_path: Path) -> None:
    """Files of newer tools also hold sums (.in_sum), older ones rows of one for each matrix."""
    path = write_gguf_imatrix(
        tmp_path / "a.gguf",
        {Q: entry(64), DOWN: (sums(96).reshape(1, 96), np.array([[1535.0]], np.float32))},
        others={f"{Q}.in_sum": np.full(64, -3, np.float32), "else": np.ones(3, np.float16)},
    )
    found = Imatrix.read(path)
    assert set(found.entries) == {Q, DOWN}
    np.testing.assert_array_equal(found.entries[Q].in_sum2, sums(64))
    np.testing.assert_array_equal(found.entries[DOWN].in_sum2, sums(96))
    assert [found.entries[name].count for name in (Q, DOWN)] == [1536, 1535]
    assert (found.chunk_count, found.chunk_size) == (3, 512)
    assert found.datasets == ("calibration.txt",)


def test_keys_may_be_missing(tmp_path: Path) -> None:
    none = dict.fromkeys(
        ("general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")
    )
    found = Imatrix.read(write_gguf_imatrix(tmp_path / "a.gguf", {Q: entry(64)}, none))
    assert (found.chunk_count, found.chunk_size, found.datasets) == (0, 0, ())
    assert found.merged([found]).chunk_count == 0


def test_entries_without_tokens(tmp_path: Path) -> None:
    found = Imatrix.read(write_gguf_imatrix(tmp_path / "a.gguf", {Q: entry(64, count=0)}))
    assert found.entries[Q].count == 0
    assert found.importance(Q) is None


def test_the_format_before_gguf(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(legacy_bytes({Q: (sums(64), 3), DOWN: (sums(96), 4)}))
    found = Imatrix.read(path)
    for name, n_columns, n_windows in ((Q, 64, 3), (DOWN, 96, 4)):
        # llama-quantize divides by the windows: a multiple of both by 512 changes no bit.
        mean = sums(n_columns) / np.float32(n_windows)
        np.testing.assert_array_equal(found.importance(name), mean)
        assert found.entries[name].count == 512 * n_windows
    assert (found.chunk_count, found.chunk_size, found.datasets) == (3, 512, ("old.txt",))
    again = tmp_path / "imatrix.gguf"
    found.write(again)
    np.testing.assert_array_equal(Imatrix.read(again).importance(Q), found.importance(Q))


@pytest.mark.parametrize("end", [b"", b"\x03\0\0\0", b"\x03\0\0\0\0\0\0\0"])
def test_the_oldest_files_end_early(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(legacy_bytes({Q: (sums(64), 3)}, end=end))
    found = Imatrix.read(path)
    assert (found.chunk_count, found.datasets) == (3 if end else 0, ())
