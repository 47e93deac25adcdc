"""SamplingOptions: defaults, the file's recommendations, and what it says of senseless values."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest

from edgeqwen.errors import FileFormatError, OptionError
from edgeqwen.sampling import SamplingOptions


def test_defaults_are_those_of_qwen_instruct() -> None:
    assert dataclasses.asdict(SamplingOptions()) == {
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "min_p": 0.0,
        "repetition_penalty": 1.05,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": None,
    }


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("temperature", -0.1, "a number of at least 0"),
        ("temperature", math.nan, "a number of at least 0"),
        ("temperature", math.inf, "a number of at least 0"),
        ("temperature", "0.5", "a number of at least 0"),
        ("temperature", True, "a number of at least 0"),
        ("temperature", None, "a number of at least 0"),
        ("temperature", 10**400, "a number of at least 0"),
        ("temperature", 1e-9, "0 (greedy), or at least 1e-06"),
        ("top_k", -1, "a whole number of at least 0 (0 keeps all tokens)"),
        ("top_k", 2.5, "a whole number of at least 0 (0 keeps all tokens)"),
        ("top_k", True, "a whole number of at least 0 (0 keeps all tokens)"),
        ("top_p", 1.01, "a number above 0, up to 1"),
        ("top_p", -0.5, "a number above 0, up to 1"),
        ("top_p", 0.0, "a number above 0, up to 1; top_k=1 keeps only the likeliest"),
        ("min_p", 1.5, "a number from 0 to 1"),
        ("min_p", -1, "a number from 0 to 1"),
        ("repetition_penalty", 0.0, "a number above 0 (1 means none)"),
        ("repetition_penalty", -1, "a number above 0 (1 means none)"),
        ("repetition_penalty", 1e9, "a number above 0 (1 means none)"),
        ("presence_penalty", 2.1, "a number from -2 to 2"),
        ("frequency_penalty", -2.1, "a number from -2 to 2"),
        ("seed", -1, "a whole number from 0 to 2**64 - 1, or None"),
        ("seed", 1.0, "a whole number from 0 to 2**64 - 1, or None"),
        ("seed", 2**64, "a whole number from 0 to 2**64 - 1, or None"),
    ],
)
def test_senseless_values(name: str, value: object, expected: str) -> None:
    with pytest.raises(OptionError) as error:
        SamplingOptions(**{name: value})  # type: ignore[arg-type]
    assert str(error.value) == f"{name} is {value!r}: expected {expected}"
    with pytest.raises(OptionError, match=f"{name} is"):
        SamplingOptions().replace(**{name: value})


def test_numbers_of_any_kind_become_pythons_own() -> None:
    options = SamplingOptions(
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        top_k=np.int64(3),  # type: ignore[arg-type]
        top_p=1,
        seed=np.uint64(2**64 - 1),  # type: ignore[arg-type]
    )
    assert options == SamplingOptions(temperature=0.5, top_k=3, top_p=1.0, seed=2**64 - 1)
    assert {type(v) for v in dataclasses.asdict(options).values()} == {int, float}


def test_replace_leaves_the_rest() -> None:
    options = SamplingOptions(top_k=3).replace(temperature=0)
    assert (options.top_k, options.temperature) == (3, 0)


def test_recommendations_of_the_file() -> None:
    metadata = {
        "general.sampling.temp": 0.6,
        "general.sampling.top_k": 40,
        "general.sampling.top_p": 0.95,
        "general.sampling.min_p": 0.01,
        "general.sampling.penalty_repeat": 1.1,
        "general.name": "x",
    }
    assert SamplingOptions.from_gguf(metadata) == SamplingOptions(0.6, 40, 0.95, 0.01, 1.1)
    assert SamplingOptions.from_gguf({}) == SamplingOptions()


def test_senseless_recommendation() -> None:
    with pytest.raises(FileFormatError) as error:
        SamplingOptions.from_gguf({"general.sampling.top_p": 2.0})
    assert str(error.value) == (
        "general.sampling.top_p in the model file: top_p is 2.0: expected a number above 0, up to 1"
    )


@pytest.mark.processes
def test_options_need_no_numba() -> None:
    code = "import sys, edgeqwen.sampling; assert not {'numba', 'llvmlite'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
