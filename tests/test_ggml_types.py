"""The table of tensor types against the one of the gguf package."""

import gguf
import pytest

from edgeqwen.errors import OptionError
from edgeqwen.ggml_types import WITHDRAWN_TYPES, GgmlType

SIZES = gguf.constants.GGML_QUANT_SIZES


@pytest.mark.parametrize("kind", list(GgmlType), ids=lambda kind: kind.name)
def test_sizes_match_gguf(kind: GgmlType) -> None:
    try:
        other = gguf.GGMLQuantizationType(kind.value)
    except ValueError:
        pytest.skip(f"this version of gguf doesn't know {kind.name}")
    assert kind.name == other.name
    assert (kind.block_size, kind.type_size) == SIZES[other]


def test_every_type_up_to_the_newest_is_known() -> None:
    ours = {int(kind) for kind in GgmlType}
    assert {int(kind) for kind in gguf.GGMLQuantizationType if kind <= max(ours)} <= ours


def test_types_of_published_files_are_known() -> None:
    names = (
        "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS "
        "IQ3_XXS IQ3_S IQ2_XXS IQ2_XS IQ2_S IQ1_S IQ1_M"
    )
    assert set(names.split()) <= {kind.name for kind in GgmlType}


def test_withdrawn_numbers_are_not_types() -> None:
    assert not set(WITHDRAWN_TYPES) & {int(kind) for kind in GgmlType}


def test_bytes_of_a_tensor() -> None:
    assert GgmlType.Q4_0.n_bytes((3, 64)) == 3 * 2 * 18
    assert GgmlType.F32.n_bytes((5,)) == 20
    assert GgmlType.Q6_K.n_bytes((151936, 1536)) == 151936 * 6 * 210
    assert GgmlType.Q4_0.bits_per_weight == 4.5


def test_bytes_of_odd_columns() -> None:
    with pytest.raises(OptionError, match="896 columns is not a multiple of 256, which Q4_K needs"):
        GgmlType.Q4_K.n_bytes((2, 896))
