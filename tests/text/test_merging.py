"""The index of tokens, the table of merges and merging, against plain Python and the library."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models

from edgeqwen.gguf_arrays import StringArray
from edgeqwen.text import merging
from edgeqwen.text.merge_kernels import SHORT, kernels
from edgeqwen.text.merging import BadMergeError, DuplicateTokenError, MergeTable, TokenIndex
from tests.gguf_samples import byte_alphabet
from tests.oracles.merging import merge_word, ranks

ALPHABET = byte_alphabet()
LETTERS = "abcä"
SEPARATOR = ord("|")


def table(tokens: list[str], merges: list[str]) -> MergeTable:
    byte_ids = np.array([tokens.index(letter) for letter in ALPHABET], np.int32)
    return TokenIndex(StringArray.of(tokens)).merge_table(StringArray.of(merges), byte_ids)


def vocabulary(choices: random.Random, n_merges: int) -> tuple[list[str], list[str]]:
    """Returns tokens and merges of few letters, in any order, which all fit together."""
    letters = [ALPHABET[byte] for byte in LETTERS.encode()]
    known, merges = list(letters), []
    while len(merges) < n_merges:
        # Few letters: often, several merges make one token, and pairs are there again.
        left, right = choices.choice(known), choices.choice(known)
        merges.append(f"{left} {right}")
        if left + right not in known and len(left + right) < 40:
            known.append(left + right)
        elif left + right not in known:
            merges.pop()
    choices.shuffle(merges)
    tokens = [*ALPHABET, *(token for token in known if token not in letters)]
    choices.shuffle(tokens)
    return tokens, merges


@settings(deadline=None, max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(0, 60), st.data())
def test_as_plain_python_and_the_library_merge(
    choices: random.Random, n_merges: int, data: st.DataObject
) -> None:
    tokens, merges = vocabulary(choices, n_merges)
    made = table(tokens, merges)
    oracle = ranks(tokens, merges)
    library = models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[tuple(merge.split(" ")) for merge in merges],
    )
    byte_ids = [tokens.index(letter) for letter in ALPHABET]
    for _ in range(5):
        length = data.draw(st.integers(0, 3 * SHORT))
        word = "".join(choices.choices(LETTERS, k=length))
        found = made.merged(word.encode(), SEPARATOR)
        assert found == merge_word([byte_ids[byte] for byte in word.encode()], oracle)
        written = "".join(ALPHABET[byte] for byte in word.encode())
        assert found == [token.id for token in library.tokenize(written)]


@pytest.mark.parametrize("length", [SHORT - 1, SHORT, SHORT + 1])
def test_short_and_long_words(length: int) -> None:
    tokens, merges = vocabulary(random.Random(5), 40)
    made, oracle = table(tokens, merges), ranks(tokens, merges)
    for seed in range(40):
        word = bytes(random.Random(seed).choices(b"abc", k=length))
        expected = merge_word([tokens.index(ALPHABET[byte]) for byte in word], oracle)
        assert made.merged(word, SEPARATOR) == expected


def test_words_one_after_the_other() -> None:
    tokens = [*ALPHABET, "ab", "ba", "abab"]
    made = table(tokens, ["a b", "b a", "ab ab"])
    words = ["abab", "b", "", "aba", "x" * 2 * SHORT, "bb"]
    separate = [id for word in words for id in made.merged(word.encode(), SEPARATOR)]
    assert made.merged("|".join(words).encode(), SEPARATOR) == separate
    # Nothing is merged across words, whatever the byte between them.
    assert made.merged(b"a\xffb\xff", 0xFF) == [tokens.index("a"), tokens.index("b")]
    assert made.merged(b"", SEPARATOR) == []


def test_a_merge_may_be_more_frequent_than_those_it_is_made_of() -> None:
    tokens = [*ALPHABET, "bc", "abc", "abcabc"]
    merges = ["abc abc", "a bc", "b c"]
    assert table(tokens, merges).merged(b"abcabcabc", SEPARATOR) == [258, 257]
    many = table(tokens, merges).merged(b"abc" * SHORT, SEPARATOR)
    assert many == [258] * (SHORT // 2)


@pytest.mark.parametrize("times", [1, SHORT])
def test_a_pair_that_has_changed_waits_for_its_new_turn(times: int) -> None:
    """What was "a b" is "a bc" when its turn comes, and "bc d" comes before that."""
    tokens = [*ALPHABET, "bc", "ab", "bcd", "abc"]
    made = table(tokens, ["b c", "a b", "bc d", "a bc"])
    assert made.merged(b"abcd" * times, SEPARATOR) == [tokens.index("a"), 258] * times


def test_of_a_pair_that_is_there_twice_the_last_counts() -> None:
    tokens = [*ALPHABET, "ab", "bc"]
    assert table(tokens, ["a b", "b c"]).merged(b"abc", SEPARATOR) == [256, tokens.index("c")]
    twice = table(tokens, ["a b", "b c", "a b"])
    assert twice.merged(b"abc", SEPARATOR) == [tokens.index("a"), 257]


def test_long_runs_of_one_letter() -> None:
    tokens = [*ALPHABET, *("a" * 2**i for i in range(1, 11))]
    made = table(tokens, [f"{'a' * 2**i} {'a' * 2**i}" for i in range(10)])
    assert made.merged(b"a" * 100_000, SEPARATOR) == [265] * 97 + [264, 262, 260]
    assert made.merged(b"a" * 100_000 + b"|a", SEPARATOR)[-2:] == [260, ALPHABET.index("a")]


def test_many_tokens() -> None:
    """Tokens that begin, end and are as long as others, and lie in any order."""
    choices = random.Random(1)
    words = sorted({"".join(choices.choices("abcdefgh", k=5)) for _ in range(20_000)})
    tokens = [*ALPHABET, *words, ""]
    choices.shuffle(tokens)
    merges = [f"{word} " for word in words] + [f" {word}" for word in words]
    slots = table(tokens, merges)._slots
    slots = slots[slots[:, 0] != 0]
    ids = {token: i for i, token in enumerate(tokens)}
    found = {(int(pair - 1) >> 32, int(pair - 1) & 0xFFFFFFFF): int(v) for pair, v in slots}
    expected = {(ids[word], ids[""]): (i << 32) | ids[word] for i, word in enumerate(words)}
    for i, word in enumerate(words):
        expected[ids[""], ids[word]] = ((len(words) + i) << 32) | ids[word]
    assert found == expected


@pytest.mark.parametrize("again", [0, 100, 255])
def test_a_token_that_is_there_twice(again: int) -> None:
    with pytest.raises(DuplicateTokenError) as error:
        TokenIndex(StringArray.of([*ALPHABET, "xy", ALPHABET[again], "xy"]))
    assert (error.value.first, error.value.second) == (again, 257)


@pytest.mark.parametrize(
    "bad", ["ab", "a b ", "a b b", " a b", "a  b", "", "a c", "q b", "a q", "bb a"]
)
def test_a_merge_that_does_not_fit(bad: str) -> None:
    tokens = [*ALPHABET, "ab", "ba", "abx", "b ", "b b", "ab b"]
    with pytest.raises(BadMergeError) as error:
        table(tokens, ["a b", "b a", bad, "also bad"])
    assert error.value.number == 2


def test_empty_tokens_join_nothing() -> None:
    tokens = [*ALPHABET, "", "ab"]
    assert table(tokens, [" a", "a b", "b "]).merged(b"ab", SEPARATOR) == [257]


def test_hashes_can_not_be_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, merges = vocabulary(random.Random(3), 30)
    word = b"abcabcaabbcc" * 20
    results, keys = [], []
    for key in (None, 1, (1 << 63) - 1):
        if key is not None:
            # The worst of keys only take longer.
            monkeypatch.setattr(merging, "_random_key", lambda key=key: key)
        made = table(tokens, merges)
        results.append(made.merged(word, SEPARATOR))
        keys.append(made._key)
    assert results[0] == results[1] == results[2]
    assert keys[0] % 2 == 1
    assert keys[0] not in keys[1:]


def test_what_a_tokenizer_compiles() -> None:
    for compiled in kernels().values():
        compiled()
    assert {name for _, name in kernels()} == {"index_tokens", "index_merges", "merge_words"}
