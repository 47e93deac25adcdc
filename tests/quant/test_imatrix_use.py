"""Conversion with an importance matrix: smaller errors where they count, and what the file says."""

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeqwen.errors import FileFormatError, OptionError
from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant import plan, quantize
from edgeqwen.quant.calibration_text import calibration_notes
from edgeqwen.quant.encode import encode
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.imatrix_parts import Entry
from edgeqwen.quant.imatrix_use import ColumnWeights, read_imatrix
from tests.hf_checkpoints import write_checkpoint
from tests.imatrix_samples import legacy_bytes, sums, write_gguf_imatrix
from tests.oracles.blocks import read_weights, tensor_types
from tests.quant.test_plan import as_plan

SIZES: dict[str, Any] = {"n_layers": 1, "hidden_size": 256, "intermediate_size": 320}
DOWN = "blk.0.ffn_down.weight"
KINDS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up")
COLUMNS = {f"blk.0.{kind}.weight": 256 for kind in KINDS} | {DOWN: 320}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("imatrix") / "a", dtype="f32", **SIZES)


@pytest.fixture(scope="module")
def exact(folder: Path) -> dict[str, np.ndarray]:
    quantize(folder, folder.parent / "exact.gguf", "f32")
    return read_weights(folder.parent / "exact.gguf")


def matrix(**changes: int) -> Imatrix:
    """Returns an entry for each matrix of the layer; ``changes`` are other numbers of columns."""
    columns = {name: changes.get(name.split(".")[2], n) for name, n in COLUMNS.items()}
    entries = {name: Entry(sums(n, seed=i), 2048) for i, (name, n) in enumerate(columns.items())}
    return Imatrix(entries, 4, 512, ("one.txt", "two.txt"), source="a.imatrix")


def metadata(path: Path) -> dict[str, Any]:
    """Returns the keys of a file that tell of importance, with their types."""
    fields = gguf.GGUFReader(path).fields
    return {
        key.removeprefix("quantize.imatrix."): (field.contents(), field.types[0].name)
        for key, field in fields.items()
        if key.startswith("quantize.")
    }


@pytest.mark.parametrize("type", ["q4_0", "q5_1", "q4_k_s", "q3_k_s", "q2_k", "iq4_nl"])
def test_errors_are_smaller_where_they_count(
    folder: Path, exact: dict[str, np.ndarray], tmp_path: Path, type: str
) -> None:
    plain, weighed = tmp_path / "plain.gguf", tmp_path / "weighed.gguf"
    # The same types in both: some recipes choose others where importance is known.
    kept = {DOWN: "q5_0"}
    quantize(folder, plain, type, tensor_types=kept)
    quantize(folder, weighed, type, tensor_types=kept, imatrix=matrix())
    types, before, after = tensor_types(plain), read_weights(plain), read_weights(weighed)
    assert tensor_types(weighed) == types
    for name in COLUMNS:
        importance = matrix().importance(name)

        def error(found: dict[str, np.ndarray], name: str = name, w: Any = importance) -> float:
            return float(((found[name] - exact[name]).astype(np.float64) ** 2 * w).sum())

        assert error(after) < 0.9 * error(before), (name, types[name])
    # Without an entry, nothing changes.
    for name in exact.keys() - COLUMNS.keys():
        np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.parametrize("type", ["q4_0", "q5_1", "q4_k_s", "iq4_nl"])
def test_errors_weigh_the_mean_squares(
    folder: Path, exact: dict[str, np.ndarray], tmp_path: Path, type: str
) -> None:
    """Those of the file, each for its column: neither their roots nor another matrix's."""
    output = tmp_path / "x.gguf"
    quantize(folder, output, type, imatrix=matrix())
    with GgufFile.open(output) as file:
        for name, entry in matrix().entries.items():
            found = file.tensor(name)
            importance = entry.in_sum2 / np.float32(entry.count)
            expected = np.empty(found.n_bytes, np.uint8)
            assert encode(found.type, exact[name], expected, importance)
            np.testing.assert_array_equal(file.data(name), expected, err_msg=name)
            assert encode(found.type, exact[name], expected, np.sqrt(importance))
            assert file.data(name).tobytes() != expected.tobytes()


@pytest.mark.parametrize("type", ["f16", "q8_0"])
def test_types_that_round_each_weight_alone(folder: Path, tmp_path: Path, type: str) -> None:
    plain, weighed = tmp_path / "plain.gguf", tmp_path / "weighed.gguf"
    quantize(folder, plain, type)
    quantize(folder, weighed, type, imatrix=matrix())
    before, after = read_weights(plain), read_weights(weighed)
    for name, weights in before.items():
        np.testing.assert_array_equal(after[name], weights)


def test_types_are_chosen_with_it(tmp_path: Path) -> None:
    """As llama-quantize does: what was given to the first layers by a guess isn't any more."""
    sizes = {**SIZES, "n_layers": 8, "intermediate_size": 512}
    folder = write_checkpoint(tmp_path / "a", **sizes)
    name = "blk.0.ffn_down.weight"
    entry = Entry(sums(512), 512)
    for imatrix, expected in ((None, "Q5_K"), (Imatrix({name: entry}), "IQ4_XS")):
        found = {t.name: t.type.name for t in plan(folder, "iq4_xs", imatrix=imatrix).tensors}
        assert found[name] == expected
        assert found["blk.7.ffn_down.weight"] == "IQ4_XS"


def test_what_the_file_says_of_it(folder: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "given.gguf", tmp_path / "x.gguf"
    matrix().write(source)
    quantize(folder, output, imatrix=source)
    expected: dict[str, Any] = {
        "file": (str(source), "STRING"),
        "dataset": ("one.txt", "STRING"),
        "entries_count": (7, "UINT32"),
        "chunks_count": (4, "UINT32"),
    }
    assert metadata(output) == expected
    again = tmp_path / "again.gguf"
    quantize(folder, again, imatrix=matrix())
    del expected["file"]
    assert metadata(again) == expected
    # What a source was made with is no news of what is made of it.
    quantize(output, again, "f16")
    assert metadata(again) == {}
    few = Imatrix({DOWN: Entry(sums(320), 9)})
    quantize(folder, again, imatrix=few)
    assert metadata(again) == {"entries_count": (1, "UINT32")}


def test_names_that_are_no_unicode(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "caf\udce9.gguf"
    try:
        matrix().write(source)
    except OptionError:
        pytest.skip("this system's file names are Unicode")
    quantize(folder, tmp_path / "x.gguf", imatrix=source)
    assert metadata(tmp_path / "x.gguf")["file"] == (str(tmp_path / "caf?.gguf"), "STRING")


def test_every_kind_of_file(folder: Path, tmp_path: Path) -> None:
    """A file of llama.cpp's tool, in either format, has the same effect."""
    names = dict(enumerate(COLUMNS))
    values = {name: sums(COLUMNS[name], seed=i) for i, name in names.items()}
    new, old = tmp_path / "new.gguf", tmp_path / "old.dat"
    counts = np.array([2048], np.float32)
    write_gguf_imatrix(new, {name: (x, counts) for name, x in values.items()})
    old.write_bytes(legacy_bytes({name: (x / np.float32(512), 4) for name, x in values.items()}))
    contents = []
    for i, imatrix in enumerate((matrix(), new, str(old))):
        output = tmp_path / f"{i}.gguf"
        quantize(folder, output, "q4_0", imatrix=imatrix)
        contents.append(read_weights(output))
    for name in COLUMNS:
        for other in contents[1:]:
            np.testing.assert_array_equal(other[name], contents[0][name])


def test_a_plan_is_what_is_done(folder: Path, tmp_path: Path) -> None:
    imatrix, output = Imatrix({DOWN: Entry(sums(320), 9)}, source="it"), tmp_path / "x.gguf"
    options: dict[str, Any] = {"type": "q4_0", "imatrix": imatrix, "pad_ffn": True}
    found = plan(folder, **options)
    assert found == as_plan(quantize(folder, output, **options))
    assert found.n_bytes == output.stat().st_size
    assert found.notes == (
        "the feed-forward size is filled up with zeros, from 320 to 512",
        "it says nothing of 6 of 8 matrices, the first is blk.0.attn_q.weight: their columns count "
        "alike",
    )


def test_padding(folder: Path, exact: dict[str, np.ndarray], tmp_path: Path) -> None:
    """What was collected before padding fits, and so does what was collected after it."""
    padded = matrix(ffn_down=512)
    before = padded.entries[DOWN].in_sum2[:320]
    after = np.concatenate([before, np.zeros(192, np.float32)])
    found = []
    for i, in_sum2 in enumerate((before, after)):
        imatrix = Imatrix({**padded.entries, DOWN: Entry(in_sum2, 2048)})
        output = tmp_path / f"{i}.gguf"
        assert len(quantize(folder, output, "q4_k_s", imatrix=imatrix, pad_ffn=True).notes) == 1
        found.append(read_weights(output)[DOWN])
    np.testing.assert_array_equal(*found)
    quantize(folder, tmp_path / "plain.gguf", "q4_k_s", pad_ffn=True)
    plain = read_weights(tmp_path / "plain.gguf")[DOWN]
    errors = [((x[:, :320] - exact[DOWN]) ** 2 * before).sum() for x in (found[0], plain)]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize(
    ("imatrix", "message"),
    [
        (
            matrix(ffn_down=512),
            f"a.imatrix: {DOWN} has 512 columns, but 320 in MODEL: it is another model's; collect "
            "one from this model",
        ),
        (
            Imatrix({"blk.9.attn_q.weight": Entry(sums(64), 9)}, source="it"),
            "it: says nothing of any matrix of MODEL: it is another model's, or is empty; collect "
            "one from this model (edgeqwen imatrix)",
        ),
        (Imatrix({DOWN: Entry(sums(320), 0)}, source="it"), "it: says nothing of any matrix of"),
    ],
)
def test_another_model_s(folder: Path, tmp_path: Path, imatrix: Imatrix, message: str) -> None:
    output = tmp_path / "x.gguf"
    for how in (plan, lambda source, **kept: quantize(source, output, **kept)):
        with pytest.raises(OptionError) as error:
            how(folder, imatrix=imatrix)
        assert str(error.value).startswith(message.replace("MODEL", str(folder)))
    assert not [*tmp_path.iterdir()]


def test_files_that_are_none(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.gguf"
    model, empty = tmp_path / "model.gguf", tmp_path / "empty.txt"
    quantize(folder, model, "f16")
    empty.touch()
    for path, message in (
        (tmp_path / "nothing", "nothing: no such file$"),
        (model, "is a GGUF file of the type 'model', expected an importance matrix"),
        (folder / "config.json", "is JSON, expected an importance matrix"),
        (empty, "empty.txt: is empty, expected an importance matrix; edgeqwen imatrix makes one "),
        (folder, "a: is a folder, expected an importance matrix; edgeqwen imatrix makes one from"),
    ):
        with pytest.raises(FileFormatError, match=message):
            quantize(folder, output, imatrix=path)
    assert not output.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileFormatError, match="pipe: is no regular file, expected an importance m"):
        read_imatrix(tmp_path / "pipe")


@pytest.mark.parametrize(("n", "notes"), [(8, 1), (1, 2)])
def test_calibration_is_noted(n: int, notes: int) -> None:
    before = ColumnWeights(metadata={"a": 1}, notes=("one",))
    windows = np.arange(512 * n).reshape(n, 512)
    after = before.with_calibration(windows)
    assert after.metadata == {"a": 1, "quantize.calibration.tokens": 512 * n}
    assert after.notes == ("one", *calibration_notes(windows))
    assert len(after.notes) == 1 + notes
