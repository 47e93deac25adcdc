"""The same ids as Hugging Face's tokenizer, on a small vocabulary and on the real one."""

import functools
import unicodedata
from collections.abc import Callable
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
        pytest.param(("small", transformers_tokenizer), marks=pytest.mark.peers),
        pytest.param(("real", transformers_tokenizer), marks=pytest.mark.peers),
    ],
    ids=["small-json", "small-transformers", "real-transformers"],
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
