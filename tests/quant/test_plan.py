"""plan(): what quantize() would do, from headers alone."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from edgeqwen.errors import FileFormatError, OptionError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant import QuantizePlan, plan, quantize
from tests.hf_checkpoints import safetensors_header, tensor_shapes, write_checkpoint
from tests.quant.recipe_cases import MODELS, our_types


def as_plan(report: QuantizePlan) -> QuantizePlan:
    """Returns what a report has in common with a plan."""
    fields = dataclasses.fields(QuantizePlan)
    return QuantizePlan(**{field.name: getattr(report, field.name) for field in fields})


@pytest.mark.parametrize(
    "options",
    [
        {"type": "f16"},
        {"type": "Q4_0", "pad_ffn": True},
        {"type": "q4_0", "tensor_types": {"attn_v": "q8_0", "ffn": "f16"}},
    ],
)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_it_is_what_quantize_does(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    source = write_checkpoint(tmp_path / "a", tied=False)
    if kind == "file":
        quantize(source, tmp_path / "a.gguf", "f32")
        source = tmp_path / "a.gguf"
    found = plan(source, **options)
    output = tmp_path / "x.gguf"
    assert not output.exists()
    assert found == as_plan(quantize(source, output, **options))
    assert found.n_bytes == output.stat().st_size


def test_sums(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", n_layers=3)
    found = plan(folder, "q8_0", tensor_types={"ffn_down": "f16"})
    assert found.source == folder
    assert found.type == "q8_0"
    assert [total.type.name for total in found.by_type] == ["Q8_0", "F16", "F32"]
    assert sum(total.n_tensors for total in found.by_type) == len(found.tensors) == 38
    f16 = found.by_type[1]
    assert (f16.n_tensors, f16.n_weights, f16.n_bytes) == (3, 3 * 64 * 96, 3 * 64 * 96 * 2)
    assert found.n_weights == sum(total.n_weights for total in found.by_type)
    n_bits = sum(total.n_bytes for total in found.by_type) * 8
    assert found.bits_per_weight == pytest.approx(n_bits / found.n_weights)
    assert found.bits_per_weight == pytest.approx(plan(folder, "q8_0").bits_per_weight, rel=0.3)


def write_narrow_72b(folder: Path) -> Path:
    """Writes 80 layers of zeros, which take no room on the disk; rows end as those of the 72B."""
    sizes = {
        "hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 80,
        "num_attention_heads": 8, "num_key_value_heads": 1, "vocab_size": 448,
    }  # fmt: skip
    write_checkpoint(folder, n_layers=1, tied=False, config=sizes)
    shapes = tensor_shapes(80, 256, 384, 8, 1, 32, 448, tied=False)
    sized = {name: ("BF16", shape, 2 * math.prod(shape)) for name, shape in shapes.items()}
    with open(folder / "model.safetensors", "wb") as file:
        file.write(safetensors_header(sized))
        file.truncate(file.tell() + sum(n_bytes for _, _, n_bytes in sized.values()))
    return folder


def test_padding_gives_the_72b_its_types(tmp_path: Path) -> None:
    folder = write_narrow_72b(tmp_path / "72B")
    before = sorted(tmp_path.rglob("*"))
    found = plan(folder, "q4_k_m")
    assert {t.name: t.type.name for t in found.tensors} == our_types("q4_k_m", MODELS["72B"])
    assert found.notes == (
        "80 matrices are not of the type meant for them: blk.0.ffn_down.weight is Q8_0, because "
        "its 384 columns are not a multiple of 256, which Q6_K needs; padding with zeros "
        "(--pad-ffn) makes them fit",
    )
    padded = plan(folder, "q4_k_m", pad_ffn=True)
    assert padded.notes == ("the feed-forward size is filled up with zeros, from 384 to 512",)
    down = {t.type for t in padded.tensors if "ffn_down" in t.name}
    assert down == {GgmlType.Q4_K, GgmlType.Q6_K}
    assert padded.n_weights - found.n_weights == 80 * 3 * 128 * 256
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("type", ["q4_0", "q4_1"])
def test_padding_helps_one_matrix_or_many(tmp_path: Path, type: str) -> None:
    folder = write_checkpoint(tmp_path / "a", intermediate_size=100, n_layers=1)
    note = plan(folder, type).notes[0]
    assert note == (
        "1 matrix is not of the type meant for it: blk.0.ffn_down.weight is F16, because its 100 "
        f"columns are not a multiple of 32, which {type.upper()} needs; padding with zeros "
        "(--pad-ffn) makes it fit"
    )


def test_overrides_that_do_not_fit(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a", n_layers=1)
    found = plan(folder, "f16", tensor_types={r"attn_q": "q6_k", "ffn": "q3_k"})
    types = {tensor.name: tensor.type.name for tensor in found.tensors}
    assert types["blk.0.attn_q.weight"] == "Q8_0"
    assert types["blk.0.attn_q.bias"] == "F32"
    assert types["blk.0.ffn_norm.weight"] == "F32"
    assert types["blk.0.ffn_up.weight"] == "Q4_0"
    assert types["blk.0.attn_k.weight"] == "F16"
    assert found.notes == (
        "4 matrices are not of the type meant for them: blk.0.attn_q.weight is Q8_0, because its "
        "64 columns are not a multiple of 256, which Q6_K needs",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "q9"}, "'q9' is no type to quantize to"),
        (
            {"tensor_types": {"attn_q.bias": "q8_0"}},
            "'attn_q.bias': found in the name of no matrix",
        ),
        ({"tensor_types": {"attn_q": "int8"}}, "'int8' is no type that a tensor can be"),
    ],
)
def test_mistakes(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    folder = write_checkpoint(tmp_path / "a")
    for how in (plan, lambda source, **kept: quantize(source, tmp_path / "x.gguf", **kept)):
        with pytest.raises(OptionError) as error:
            how(folder, **options)
        assert message in str(error.value)
    assert not (tmp_path / "x.gguf").exists()


def test_refusals_are_those_of_quantize(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileFormatError, match="no weights"):
        plan(folder)
    with pytest.raises(OptionError, match="no such folder or file"):
        plan(tmp_path / "nothing")
