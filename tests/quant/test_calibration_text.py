"""The text to calibrate on becomes windows of tokens, spread over all of it."""

from pathlib import Path

import numpy as np
import pytest

from edgeqwen.errors import OptionError
from edgeqwen.quant.calibration_text import calibration_windows
from edgeqwen.quant.checkpoint import Checkpoint, open_checkpoint
from tests.gguf_samples import write_tiny_gguf

# A token for each byte that no merge joins.
TEXT = "".join(chr(ord("A") + i % 26) for i in range(5000))


def checkpoint(folder: Path, max_context: int = 4096) -> Checkpoint:
    write_tiny_gguf(folder / "a.gguf", max_context=max_context)
    return open_checkpoint(folder / "a.gguf")


def as_text(tokens: np.ndarray) -> str:
    return "".join(chr(token) for token in tokens)


@pytest.mark.parametrize(
    ("n", "most", "starts", "length"),
    [
        (5000, 100_000, range(0, 4608, 512), 512),
        (5000, 1536, [0, 1536, 3072], 512),
        (5000, 1000, [0], 512),
        (5000, 200, [0], 200),
        (1000, 100_000, [0], 512),
        (300, 100_000, [0], 300),
        (64, 64, [0], 64),
        (5000, 1, [0], 64),
    ],
)
def test_windows(tmp_path: Path, n: int, most: int, starts: list[int], length: int) -> None:
    found = calibration_windows(TEXT[:n], checkpoint(tmp_path), most)
    assert found.dtype == np.int64
    assert [as_text(window) for window in found] == [TEXT[at : at + length] for at in starts]


def test_windows_fit_into_the_context(tmp_path: Path) -> None:
    found = calibration_windows(TEXT, checkpoint(tmp_path, max_context=96), 960)
    assert found.shape == (10, 96)


def test_special_tokens_are_taken_as_such(tmp_path: Path) -> None:
    source = checkpoint(tmp_path)
    found = calibration_windows("<|im_start|>" + TEXT[:200], source, 64)
    tokens = source.metadata["tokenizer.ggml.tokens"]
    assert list(tokens)[found[0, 0]] == "<|im_start|>"
    assert as_text(found[0, 1:]) == TEXT[:63]


@pytest.mark.parametrize("n", [0, 1, 63])
def test_a_text_that_is_too_short(tmp_path: Path, n: int) -> None:
    with pytest.raises(OptionError) as error:
        calibration_windows(TEXT[:n], checkpoint(tmp_path), 32768)
    assert str(error.value) == (
        f"the text to calibrate with has {n} tokens, expected at least 64, and better 32768; give "
        "a longer one"
    )


@pytest.mark.parametrize("most", [0, -5, 2.5, "many", True, None])
def test_senseless_numbers_of_tokens(tmp_path: Path, most: int) -> None:
    with pytest.raises(OptionError, match=f"^calibrate_tokens is {most!r}: expected a whole "):
        calibration_windows(TEXT, checkpoint(tmp_path), most)
