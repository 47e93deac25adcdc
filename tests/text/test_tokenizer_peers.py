"""The same ids as Hugging Face's tokenizer, on a small vocabulary and on the real one."""

import functools
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeqwen.text.tokenizer import Tokenizer
from tests.hf_tokenizers import NOT_SPECIAL, SPECIAL, tokenizer_files
from tests.text.vocabularies import tokenizer, tokens_and_merges

# What the pre-tokenizer treats in different ways, and what normalisation composes or reorders.
PIECES = st.sampled_from(
    [
        *(" ", "  ", "\n", "\r\n", "\t", "\u3000", "\xa0", "\u2028", "'s", "'LL", "'ſ", "don't"),
        *("Ａ", "e\u0301", "\u0323\u0301", "ﬁ", "각", "각", "Å", "²", "١٢", "12345", "½", "Ⅷ"),
        *(
            "नमस्ते",
            "ก็",
            "👩‍👩‍👧",
            "🏳️‍🌈",
            "\u200d",
            "\ufeff",
            "...",
            "!?\n\n",
            "=====",
            "Привет",
            "你好",
            "_",
        ),
        *("\x00", "\x7f", "\u0378", "\U0010ffff", "\U000e0001", "İ", "ß", "K"),
    ]
)
# Where Unicode has: ASCII, Latin, combining marks, Greek and Cyrillic, Hebrew and Arabic, Indic,
# Thai, jamo, punctuation and spaces, symbols, Japanese, Chinese, Korean, private use, full width,
# emoji, the last plane.
RANGES = (
    *((0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x30, 0x39), (0x09, 0x0D), (0x20, 0x20)),
    *((0x80, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xD7F)),
    *((0xE00, 0xE7F), (0x1100, 0x11FF), (0x2000, 0x206F), (0x2100, 0x27BF), (0x3040, 0x30FF)),
    *((0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xFF00, 0xFFEF), (0x1F300, 0x1FAFF)),
    (0x10FF00, 0x10FFFF),
)
TEXTS = st.text(max_size=30) | st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)
WITH_SPECIAL = st.lists(
    TEXTS | st.sampled_from([*SPECIAL, *NOT_SPECIAL, "<|im_", "|>", "<", "<<|im_end|>>"]),
    max_size=8,
).map("".join)


class Peer(NamedTuple):
    """What Hugging Face makes of the same vocabulary, merges and special tokens."""

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int], bool], str]
    tokenizer: Any


@functools.cache
def transformers_tokenizer(kind: str) -> Peer:
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    tokens, merges = tokens_and_merges(kind)
    peer = transformers.Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[tuple(merge.split(" ")) for merge in merges],
    )
    peer.add_tokens(
        [
            transformers.AddedToken(text, special=text in SPECIAL, normalized=False)
            for text in (*SPECIAL, *NOT_SPECIAL)
        ]
    )
    return Peer(
        lambda text: peer.encode(text, add_special_tokens=False),
        lambda ids, skip: peer.decode(ids, skip_special_tokens=skip),
        peer,
    )


@functools.cache
def tokenizer_json(kind: str) -> Peer:
    peer = tokenizers.Tokenizer.from_str(tokenizer_files(kind)[0]["tokenizer.json"])
    return Peer(
        lambda text: peer.encode(text, add_special_tokens=False).ids,
        lambda ids, skip: peer.decode(ids, skip_special_tokens=skip),
        peer,
    )


@pytest.fixture(
    scope="module",
    params=[
        ("small", tokenizer_json),
        ("real", tokenizer_json),
        pytest.param(("small", transformers_tokenizer), marks=pytest.mark.peers),
        pytest.param(("real", transformers_tokenizer), marks=pytest.mark.peers),
    ],
    ids=["small-json", "real-json", "small-transformers", "real-transformers"],
)
def pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, Peer]:
    kind, make = request.param
    return tokenizer(kind), make(kind)


def test_texts(pair: tuple[Tokenizer, Peer]) -> None:
    ours, peer = pair

    @settings(deadline=None, max_examples=150)
    @given(TEXTS)
    def check(text: str) -> None:
        ids = ours.encode(text)
        assert ids == peer.encode(text)
        assert ours.decode(ids) == peer.decode(ids, False) == unicodedata.normalize("NFC", text)

    check()


def test_long_texts(pair: tuple[Tokenizer, Peer]) -> None:
    """Words of many scripts and codes, in one text: 20,000 characters at random, some of them."""
    ours, peer = pair
    for seed in range(6):
        choices = random.Random(seed)
        text = "".join(_some_characters(choices) for _ in range(2500))
        assert ours.encode(text) == peer.encode(text)


def _some_characters(choices: random.Random) -> str:
    first, last = choices.choice(RANGES)
    length = choices.choice((1, 1, 2, 3, 8, 30))
    if choices.random() < 0.2:
        return chr(choices.randint(first, last)) * length
    return "".join(chr(choices.randint(first, last)) for _ in range(length))


@pytest.mark.parametrize("letter", ["a", " ", "=", "é", "你", "🦙", "\n", "\0", "ab", "\u0301"])
def test_long_runs(pair: tuple[Tokenizer, Peer], letter: str) -> None:
    ours, peer = pair
    text = letter * (100_000 // len(letter))
    assert ours.encode(text) == peer.encode(text)


def test_texts_that_somebody_wrote(pair: tuple[Tokenizer, Peer]) -> None:
    """Prose, tables, and code with its white space, this repository's own."""
    ours, peer = pair
    root = Path(__file__).resolve().parents[2]
    files = [*root.glob("docs/*.md"), *root.glob("edgeqwen/text/*.py"), *root.glob("quant/*.py")]
    assert len(files) > 30
    for file in files:
        text = file.read_text("utf-8")
        assert ours.encode(text, allow_special=True) == peer.encode(text), file


def test_special_tokens(pair: tuple[Tokenizer, Peer]) -> None:
    ours, peer = pair

    @settings(deadline=None, max_examples=100)
    @given(WITH_SPECIAL)
    def check(text: str) -> None:
        ids = ours.encode(text, allow_special=True)
        assert ids == peer.encode(text)
        for skip in (False, True):
            assert ours.decode(ids, skip_special=skip) == peer.decode(ids, skip)

    check()


def test_any_ids(pair: tuple[Tokenizer, Peer]) -> None:
    """Bytes in any order: what is no UTF-8 becomes U+FFFD in the same places."""
    ours, peer = pair

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.integers(0, 255) | st.integers(0, ours.vocab_size - 6), max_size=12))
    def check(ids: list[int]) -> None:
        assert ours.decode(ids) == peer.decode(ids, False)

    check()
