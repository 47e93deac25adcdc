"""quantize(calibrate=...): predictions nearer to the source's, in the same types, of any source."""

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeqwen.errors import EdgeqwenError, FileFormatError, OptionError
from edgeqwen.quant import plan, quantize
from edgeqwen.quant.calibrate import workspace
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.imatrix_parts import Entry
from edgeqwen.text.tokenizer import Tokenizer
from edgeqwen.text.vocabulary import Vocabulary
from tests.gguf_samples import write_tiny_gguf
from tests.hf_checkpoints import write_checkpoint
from tests.imatrix_samples import sums
from tests.oracles.blocks import read_weights, tensor_types
from tests.quant.calibration_cases import (
    Doubles,
    divergence,
    log_probabilities,
    texts,
    trained_layers,
)

TEXT, OTHER = texts()
FEW: dict[str, Any] = {"calibrate": TEXT, "calibrate_tokens": 512}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_layers(tmp_path_factory.mktemp("calibrate") / "a", 2)


@pytest.fixture(scope="module")
def exact(trained: Path) -> Path:
    quantize(trained, trained.parent / "exact.gguf", "f32")
    return trained.parent / "exact.gguf"


@pytest.fixture(scope="module")
def tokens(exact: Path) -> np.ndarray:
    metadata = {f.name: f.contents() for f in gguf.GGUFReader(exact).fields.values()}
    tokenizer = Tokenizer(Vocabulary.from_gguf(metadata, source="exact"))
    return np.array(tokenizer.encode(OTHER, allow_special=True)[:320])


@pytest.fixture(scope="module")
def predicted(exact: Path, tokens: np.ndarray) -> Doubles:
    return log_probabilities(exact, tokens)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one layer, too small to tell quality by, and quick."""
    folder = tmp_path_factory.mktemp("small") / "a"
    return write_checkpoint(folder, n_layers=1, hidden_size=64, intermediate_size=96)


def distance(path: Path, tokens: np.ndarray, predicted: Doubles) -> float:
    return divergence(predicted, log_probabilities(path, tokens))


@pytest.mark.parametrize("type", ["q4_0", "q4_k_m"])
def test_predictions_are_nearer_to_the_source_s(
    trained: Path, tmp_path: Path, tokens: np.ndarray, predicted: Doubles, type: str
) -> None:
    before, after = tmp_path / "before.gguf", tmp_path / "after.gguf"
    quantize(trained, before, type)
    report = quantize(trained, after, type, calibrate=TEXT, calibrate_tokens=2048)
    assert tensor_types(after) == tensor_types(before)
    found = plan(trained, type)
    assert {t.name: t.type.name for t in found.tensors} == tensor_types(after)
    assert report.n_bytes == after.stat().st_size
    ratio = distance(after, tokens, predicted) / distance(before, tokens, predicted)
    assert ratio < 0.75
    # What isn't a layer's matrix stays as plain conversion makes it.
    plain, calibrated = read_weights(before), read_weights(after)
    for name, weights in plain.items():
        same = np.array_equal(calibrated[name], weights)
        assert same == (weights.ndim == 1 or not name.startswith("blk.")), name


def test_the_same_on_any_number_of_threads(trained: Path, tmp_path: Path) -> None:
    for n_threads in (1, 2):
        quantize(trained, tmp_path / f"{n_threads}.gguf", "q4_k_m", n_threads=n_threads, **FEW)
    contents = {(tmp_path / f"{n}.gguf").read_bytes() for n in (1, 2)}
    assert len(contents) == 1


@pytest.mark.parametrize("type", ["f16", "q8_0"])
def test_from_gguf(
    trained: Path, tmp_path: Path, tokens: np.ndarray, predicted: Doubles, type: str
) -> None:
    source, before, after = (tmp_path / name for name in ("a.gguf", "b.gguf", "c.gguf"))
    quantize(trained, source, type)
    quantize(source, before, "q4_0")
    quantize(source, after, "q4_0", calibrate=TEXT, calibrate_tokens=2048)
    ratio = distance(after, tokens, predicted) / distance(before, tokens, predicted)
    assert ratio < 0.8


def test_blocks_of_the_same_type_are_kept(small: Path, tmp_path: Path) -> None:
    source, again = tmp_path / "a.gguf", tmp_path / "b.gguf"
    quantize(small, source, "q4_0", tensor_types={"ffn_down": "q8_0"})
    quantize(source, again, "q4_0", tensor_types={"ffn_down": "q8_0"}, **FEW)
    before, after = read_weights(source), read_weights(again)
    for name, weights in before.items():
        np.testing.assert_array_equal(after[name], weights, err_msg=name)


def test_types_that_round_each_weight_alone(small: Path, tmp_path: Path) -> None:
    plain, calibrated = tmp_path / "a.gguf", tmp_path / "b.gguf"
    types = {"attn_v": "f16", "ffn_down": "q8_0", "attn_q": "bf16"}
    quantize(small, plain, "q4_0", tensor_types=types)
    quantize(small, calibrated, "q4_0", tensor_types=types, **FEW)
    assert tensor_types(calibrated) == tensor_types(plain)
    before, after = read_weights(plain), read_weights(calibrated)
    for name in before:
        kept = any(which in name for which in (*types, "norm", "bias", "embd"))
        assert np.array_equal(before[name], after[name]) == kept, name


def test_with_padding(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", n_layers=1, hidden_size=256, intermediate_size=320)
    output = tmp_path / "x.gguf"
    report = quantize(folder, output, "q4_k_s", pad_ffn=True, **FEW)
    assert report.notes[:2] == (
        "the feed-forward size is filled up with zeros, from 320 to 512",
        "calibrated on 512 tokens in 1 window",
    )
    weights = read_weights(output)
    assert weights["blk.0.ffn_down.weight"].shape == (256, 512)
    assert not weights["blk.0.ffn_down.weight"][:, 320:].any()
    assert not weights["blk.0.ffn_up.weight"][320:].any()


def test_with_an_importance_matrix(small: Path, tmp_path: Path) -> None:
    """Calibration knows better what matters in the layers; the rest heeds the importance matrix."""
    imatrix = Imatrix(
        {name: Entry(sums(64), 9) for name in ("token_embd.weight", "blk.0.attn_q.weight")}
    )
    found = {}
    for name, options in (("plain", {}), ("imatrix", {"imatrix": imatrix})):
        quantize(small, tmp_path / name, "q4_0", tensor_types={"embd": "q5_0"}, **options, **FEW)
        found[name] = read_weights(tmp_path / name)
    for name, weights in found["plain"].items():
        same = np.array_equal(weights, found["imatrix"][name])
        assert same == name.startswith(("blk.", "output_norm")), name


def test_what_the_file_says_of_it(small: Path, tmp_path: Path) -> None:
    output, again = tmp_path / "x.gguf", tmp_path / "y.gguf"
    quantize(small, output, **FEW)
    field = gguf.GGUFReader(output).fields["quantize.calibration.tokens"]
    assert (field.contents(), field.types[0].name) == (512, "UINT32")
    quantize(output, again, "f16")
    assert not [key for key in gguf.GGUFReader(again).fields if key.startswith("quantize.")]


def test_progress_never_goes_back(trained: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    output = tmp_path / "x.gguf"
    quantize(trained, output, progress=lambda done, total: calls.append((done, total)), **FEW)
    assert {total for _, total in calls} == {output.stat().st_size}
    steps = [done for done, _ in calls]
    assert steps == sorted(steps)
    assert steps[-1] == output.stat().st_size
    # Calibration is what takes its time, and what is shown.
    assert len(set(steps)) > 14


def test_errors_are_those_to_the_source(small: Path, tmp_path: Path) -> None:
    output, exact = tmp_path / "x.gguf", tmp_path / "exact.gguf"
    report = quantize(small, output, measure_errors=True, **FEW)
    quantize(small, exact, "f32")
    source, found = read_weights(exact), read_weights(output)
    for tensor in report.tensors:
        assert tensor.errors is not None
        difference = found[tensor.name].astype(np.float64) - source[tensor.name]
        assert tensor.errors.rmse == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-5)
    assert all(t.errors and t.errors.rmse > 0 for t in report.tensors if "attn_q.w" in t.name)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("when", [1, 3, 40])
def test_nothing_is_left_of_what_is_stopped(
    small: Path, tmp_path: Path, kind: type[BaseException], when: int
) -> None:
    output, calls = tmp_path / "x.gguf", []
    open_files = Path("/proc/self/fd")
    before = len([*open_files.iterdir()]) if open_files.is_dir() else 0

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == when or done == total:
            raise kind

    with pytest.raises(kind):
        quantize(small, output, progress=progress, **FEW)
    assert [*tmp_path.iterdir()] == []
    if open_files.is_dir():
        assert len([*open_files.iterdir()]) <= before


def test_nothing_is_left_of_what_is_done(small: Path, tmp_path: Path) -> None:
    quantize(small, tmp_path / "x.gguf", **FEW)
    assert [file.name for file in tmp_path.iterdir()] == ["x.gguf"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system lends no room ahead")
def test_a_disk_without_room(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace.os, "posix_fallocate", full)
    with pytest.raises(EdgeqwenError) as error:
        quantize(small, tmp_path / "x.gguf", **FEW)
    assert str(error.value) == (
        f"{tmp_path}: no room for 0 MB of activations (No space left on device); free some, "
        "calibrate with fewer tokens, or write elsewhere"
    )
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibrate": "Hello."}, "the text to calibrate with has "),
        ({"calibrate": TEXT, "calibrate_tokens": 0}, "calibrate_tokens is 0: expected "),
        ({"calibrate": TEXT, "calibrate_tokens": "all"}, "calibrate_tokens is 'all': expected "),
    ],
)
def test_senseless_options(
    small: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        quantize(small, tmp_path / "x.gguf", **options)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "name", ["blk.0.attn_norm.weight", "blk.0.attn_k.bias", "blk.1.ffn_up.weight"]
)
def test_damage_is_named_as_in_plain_conversion(tmp_path: Path, name: str) -> None:
    source = tmp_path / "a.gguf"
    sound = write_tiny_gguf(source)[name]
    sound.reshape(-1)[5] = np.nan
    write_tiny_gguf(source, tensors={name: sound})
    messages = []
    for options in ({}, {"calibrate": "a bc, d! " * 40, "calibrate_tokens": 128}):
        with pytest.raises(FileFormatError) as error:
            quantize(source, tmp_path / "x.gguf", **options)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert "holds 1 weights that are NaN or infinite" in messages[0]
    assert [*tmp_path.iterdir()] == [source]
