"""The text to calibrate on becomes windows of tokens, spread over all of it."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from edgeqwen.errors import OptionError
from edgeqwen.guide import held_out_text, model_path
from edgeqwen.quant import calibration_text
from edgeqwen.quant.calibration_text import calibration_notes, calibration_windows, cautions
from edgeqwen.quant.checkpoint import Checkpoint, open_checkpoint
from edgeqwen.text.tokenizer import Tokenizer
from tests.gguf_samples import tiny_metadata, write_tiny_gguf

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


def long_text(n_lines: int) -> str:
    """Returns lines of words, no two of which are alike, with an empty line after each."""
    lines = (f"{i} hello world, the{' ' * (i % 3)} {i * i}" for i in range(n_lines))
    return "\n\n".join(lines)


class Counting:
    """Passes texts on to a tokenizer, and keeps how long they were."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.lengths: list[int] = []

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        self.lengths.append(len(text))
        return self._tokenizer.encode(text, allow_special=allow_special)


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    """A tokenizer to which two line ends are one token, as Qwen's knows them."""
    metadata = tiny_metadata()
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    changed = {
        "tokenizer.ggml.tokens": [*tokens[:-1], "ĊĊ"],
        "tokenizer.ggml.token_type": [*types[:-1], 1],
        "tokenizer.ggml.merges": [*metadata["tokenizer.ggml.merges"], "Ċ Ċ"],
    }
    write_tiny_gguf(tmp_path / "a.gguf", metadata=changed)
    counting = Counting(Tokenizer.from_gguf(tmp_path / "a.gguf"))
    monkeypatch.setattr(calibration_text, "_tokenizer", lambda _: counting)
    return counting


def places(tokens: np.ndarray, windows: np.ndarray) -> list[int]:
    """Returns where windows begin among the tokens of a text; each must be there once."""
    whole, width = tokens.astype(np.int32).tobytes(), 4 * windows.shape[1]
    found = []
    for window in windows.astype(np.int32):
        assert len(window.tobytes()) == width
        assert whole.count(window.tobytes()) == 1
        found.append(whole.index(window.tobytes()) // 4)
    return found


@pytest.mark.parametrize("cut_at", ["lines", "words"])
def test_of_a_long_text_only_pieces_are_read(
    tmp_path: Path, counting: Counting, cut_at: str
) -> None:
    """Their tokens are those of the text, and they are spread over all of it."""
    text = long_text(12_000)
    if cut_at == "words":
        text = text.replace("\n", " ")
    assert len(text) > 300_000
    found = calibration_windows(text, checkpoint(tmp_path), 2048)
    assert found.shape == (4, 512)
    assert found.dtype == np.int64
    assert sum(counting.lengths) < 100_000
    assert max(counting.lengths) < 20_000
    tokens = np.array(counting.encode(text, allow_special=True))
    begins = places(tokens, found)
    for begin, expected in zip(begins, range(0, len(tokens), len(tokens) // 4), strict=False):
        assert expected <= begin + 0.05 * len(tokens)
        assert begin < expected + 0.05 * len(tokens)
    assert begins[0] == 0
    np.testing.assert_array_equal(calibration_windows(text, checkpoint(tmp_path), 2048), found)


def test_a_text_that_is_not_long_is_read_whole(tmp_path: Path, counting: Counting) -> None:
    text = long_text(12_000)
    for length, most in ((1 << 18, 64), (len(text), 16_384)):
        counting.lengths.clear()
        found = calibration_windows(text[:length], checkpoint(tmp_path), most)
        assert counting.lengths == [length]
        assert found.size == most


class Words:
    """A tokenizer of numbers: each is a token, however many digits it is written with."""

    def __init__(self) -> None:
        self.longest = 0

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        self.longest = max(self.longest, len(text))
        return [int(word[-9:]) for word in text.split()]


def test_pieces_of_few_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece grows until it fills a window; a part of the text that can't gives none."""
    words = Words()
    monkeypatch.setattr(calibration_text, "_tokenizer", lambda _: words)
    source = checkpoint(tmp_path)
    text = " ".join(f"{i:0100}" for i in range(10_000))
    found = calibration_windows(text, source, 1024)
    np.testing.assert_array_equal(found, np.arange(512) + np.array([[0], [5000]]))
    # A window has 51712 characters.
    assert 51_712 <= words.longest < 2 * 51_712
    found = calibration_windows(f"{text} {'0' * len(text)}", source, 1024)
    np.testing.assert_array_equal(found, np.arange(512)[None])
    # No part has enough, but all of them together have.
    text = " ".join(f"{i:05000}" for i in range(100))
    np.testing.assert_array_equal(calibration_windows(text, source, 1024), np.arange(100)[None])


def varied(n: int, length: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 1000, (n, length))


@pytest.mark.parametrize(
    ("windows", "done"),
    [
        (varied(64, 512), "calibrated on 32768 tokens in 64 windows"),
        (varied(8, 512), "calibrated on 4096 tokens in 8 windows"),
        (varied(1, 4096), "calibrated on 4096 tokens in 1 window"),
        (np.repeat(varied(4, 512), 3, axis=0), "calibrated on 6144 tokens in 12 windows"),
        (varied(2048, 2), "calibrated on 4096 tokens in 2048 windows"),
    ],
)
def test_enough_is_only_noted(windows: np.ndarray, done: str) -> None:
    assert calibration_notes(windows) == [done]


def test_few_tokens_are_warned_of() -> None:
    few = (
        "{} tokens are few to calibrate on: less is gained, and the file may even become worse "
        "than without; use 4096 or more, better 32768"
    )
    for n, windows in ((4095, varied(1, 4095)), (422, varied(1, 422))):
        assert cautions(windows) == [few.format(n)]
        assert calibration_notes(windows)[1:] == [few.format(n)]


@pytest.mark.parametrize(
    ("windows", "share"),
    [
        # A sentence again and again, a text again and again, one token.
        (np.tile(np.arange(100), 82)[None, :8192], "1.2%"),
        (np.repeat(varied(2, 4096), 5, axis=0), "20%"),
        (np.zeros((16, 512), np.int64), "0.012%"),
    ],
)
def test_texts_that_repeat_themselves_are_warned_of(windows: np.ndarray, share: str) -> None:
    assert cautions(windows) == [
        f"the text to calibrate with repeats itself, only {share} of it is new: the file may "
        "become worse than without; use a text that says more"
    ]


def test_real_texts_are_not_warned_of() -> None:
    """Not even one as uniform as what the built-in model was trained on."""
    with contextlib.closing(open_checkpoint(model_path())) as source:
        windows = calibration_windows(held_out_text(), source, 32768)
    assert windows.shape == (64, 512)
    assert cautions(windows) == []


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
