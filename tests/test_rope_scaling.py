"""RoPE scaling that a user asks for, over what a file says."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.config import ModelConfig
from edgeqwen.errors import OptionError
from edgeqwen.rope_scaling import MAX_CONTEXT, RopeScaling
from tests.config_samples import from_gguf
from tests.engines import F32_CACHE, open_engine, oracle, random_tokens, write_model
from tests.oracles.distributions import deviation

YARN = {"rope_type": "yarn", "factor": 4.0}


def config(**changes: Any) -> ModelConfig:
    return dataclasses.replace(from_gguf(), max_context=32768, **changes)


def test_yarn_scales_the_context_of_the_training() -> None:
    found = config().with_rope_scaling(YARN)
    assert found.rope_scaling == RopeScaling("yarn", 4.0, 32768)
    assert found.max_context == 131072
    assert dataclasses.replace(found, rope_scaling=None, max_context=32768) == config()


def test_in_the_words_of_a_config_json() -> None:
    asked = {"type": "yarn", "factor": 8, "original_max_position_embeddings": 4096, "beta_fast": 16}
    found = config().with_rope_scaling(asked)
    assert found.rope_scaling == RopeScaling("yarn", 8.0, 4096, beta_fast=16.0)
    assert found.max_context == 32768
    found = config().with_rope_scaling({"rope_type": "linear", "factor": 2})
    assert (found.rope_scaling, found.max_context) == (RopeScaling("linear", 2.0, 32768), 65536)


def test_no_context_is_longer_than_can_be_run() -> None:
    assert config().with_rope_scaling({**YARN, "factor": 1000}).max_context == MAX_CONTEXT


def test_a_file_that_says_the_same() -> None:
    own = RopeScaling("yarn", float(np.float32(1.1)), 32768)
    scaled = config(rope_scaling=own)
    assert scaled.with_rope_scaling({**YARN, "factor": 1.1}) is scaled


@pytest.mark.parametrize(
    "own",
    [
        RopeScaling("yarn", 2.0, 32768),
        RopeScaling("linear", 4.0, 32768),
        RopeScaling("yarn", 4.0, 32768, attn_factor=1.5),
        RopeScaling("yarn", 4.0, 32768, beta_fast=8.0),
    ],
    ids=str,
)
def test_a_file_that_says_something_else(own: RopeScaling) -> None:
    with pytest.raises(OptionError) as error:
        config(rope_scaling=own).with_rope_scaling(YARN)
    assert str(error.value) == (
        "rope_scaling asks for yarn by 4 of 32768 tokens, but the file has a RoPE scaling of its "
        f"own, {own}: leave the option out (--yarn)"
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({**YARN, "factor": 0.5}, "rope_scaling: factor is 0.5, expected a number from 1 to 1024"),
        ({**YARN, "factor": float("nan")}, "rope_scaling: factor is nan, expected a number"),
        ({**YARN, "factor": "4"}, "rope_scaling: factor is '4', expected a number from 1 to 1024"),
        ({"rope_type": "yarn"}, "rope_scaling: factor is missing"),
        ({"rope_type": "dynamic", "factor": 2.0}, "rope_scaling: rope_type is 'dynamic'"),
        ({"factor": 2.0}, "rope_scaling names no type of scaling: expected a rope_type of"),
        ({**YARN, "mscale": 1.0}, "rope_scaling: mscale is 1.0, a RoPE option that"),
        ({**YARN, "rope_theta": 1e4}, "rope_scaling holds rope_theta"),
        (
            {**YARN, "beta_fast": 1, "beta_slow": 2},
            "rope_scaling: beta_fast is 1, less than beta_slow, which is 2; expected more",
        ),
        (4.0, "rope_scaling is 4.0: expected a mapping, as"),
    ],
)
def test_senseless_options(asked: Any, message: str) -> None:
    with pytest.raises(OptionError) as error:
        config().with_rope_scaling(asked)
    assert str(error.value).startswith(message)


def test_the_engine_computes_with_it(tmp_path: Path) -> None:
    """As with a file that says so, to the end of a context four times as long."""
    plain = write_model(tmp_path / "plain.gguf", max_context=64, **F32_CACHE)
    yarn = {
        "qwen2.rope.scaling.type": "yarn",
        "qwen2.rope.scaling.factor": 4.0,
        "qwen2.rope.scaling.original_context_length": 64,
    }
    scaled = write_model(tmp_path / "scaled.gguf", max_context=64, metadata=yarn, **F32_CACHE)
    tokens = random_tokens(256)
    with open_engine(plain, rope_scaling=YARN, cache_type="f32") as engine:
        assert engine.max_context == 256
        found = engine.logits(engine.new_sequence(), tokens)
    assert deviation(found, oracle(scaled, cache_type="f32").logits(tokens)) < 1e-5
    assert deviation(found, oracle(plain, cache_type="f32").logits(tokens)) > 1e-2
    with open_engine(plain, rope_scaling=YARN, max_context=100) as engine:
        assert engine.max_context == 100
