"""The tokenizer: special tokens where they are allowed, text that comes back whole, streaming."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeqwen.errors import FileFormatError, OptionError
from edgeqwen.gguf_file import GgufFile
from edgeqwen.text.tokenizer import Tokenizer
from edgeqwen.text.vocabulary import Vocabulary
from tests.hf_tokenizers import NOT_SPECIAL, SPECIAL
from tests.text.vocabularies import CONTROL, tokenizer, vocab_metadata, write_vocab_gguf

TOKENIZER = tokenizer()
IM_END = TOKENIZER.special["<|im_end|>"]
TOOL_CALL = TOKENIZER.special["<tool_call>"]


def test_from_a_path_and_from_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "vocab.gguf"
    write_vocab_gguf(path)
    from_path = Tokenizer.from_gguf(str(path))
    with GgufFile.open(path) as file:
        from_file = Tokenizer.from_gguf(file)
        assert file.tensors == {}
    for found in (from_path, from_file):
        assert found.encode("Hello world") == TOKENIZER.encode("Hello world")
        assert found.vocab_size == TOKENIZER.vocab_size
        assert found.eos_ids == TOKENIZER.eos_ids
        assert found.special == TOKENIZER.special
    assert repr(from_path) == f"<Tokenizer {path}: {TOKENIZER.vocab_size} tokens>"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no such file"):
        Tokenizer.from_gguf(tmp_path / "absent.gguf")


def test_special_tokens_only_where_allowed() -> None:
    text = "a<|im_end|>b<tool_call>"
    plain = TOKENIZER.encode(text)
    assert not set(plain) & set(TOKENIZER.special.values())
    assert TOKENIZER.encode(text, allow_special=True) == [
        *TOKENIZER.encode("a"),
        IM_END,
        *TOKENIZER.encode("b"),
        TOOL_CALL,
    ]
    for ids in (plain, TOKENIZER.encode(text, allow_special=True)):
        assert TOKENIZER.decode(ids) == text


def test_all_special_tokens_are_known() -> None:
    assert set(TOKENIZER.special) == {*SPECIAL, *NOT_SPECIAL}
    assert set(TOKENIZER.user_defined) == set(NOT_SPECIAL)


def test_the_longer_of_two_special_tokens_wins() -> None:
    metadata = vocab_metadata()
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    tokens += ["<|im_end|>|>", "|im"]
    types += [CONTROL, CONTROL]
    changed = Tokenizer(Vocabulary.from_gguf(metadata, source="x"))
    ids = changed.encode("<|im_end|>|><|im_end|>", allow_special=True)
    assert ids == [len(tokens) - 2, tokens.index("<|im_end|>")]


def test_padding_is_never_matched() -> None:
    padding = f"[PAD{TOKENIZER.vocab_size - 1}]"
    ids = TOKENIZER.encode(padding, allow_special=True)
    assert max(ids) < TOKENIZER.vocab_size - 5
    assert TOKENIZER.decode(ids) == padding
    assert TOKENIZER.decode([TOKENIZER.vocab_size - 1]) == ""


def test_nothing_is_ever_added() -> None:
    assert TOKENIZER.encode("") == TOKENIZER.encode("", allow_special=True) == []
    assert TOKENIZER.bos_id == TOKENIZER.special["<|endoftext|>"]
    for text in ("Hello", " Hello", "\n"):
        assert TOKENIZER.bos_id not in TOKENIZER.encode(text, allow_special=True)


def test_text_is_composed_first() -> None:
    assert TOKENIZER.encode("A\N{COMBINING DIAERESIS}") == TOKENIZER.encode("Ä")
    assert TOKENIZER.decode(TOKENIZER.encode("A\N{COMBINING DIAERESIS}")) == "Ä"


def test_skip_special_leaves_tool_calls() -> None:
    ids = TOKENIZER.encode("a<|im_end|><tool_call>", allow_special=True)
    assert TOKENIZER.decode(ids, skip_special=True) == "a<tool_call>"
    stream = TOKENIZER.stream(skip_special=True)
    assert [stream.push(id) for id in ids] == ["a", "", "<tool_call>"]


def test_lone_surrogate() -> None:
    with pytest.raises(OptionError) as error:
        TOKENIZER.encode("ab\ud800c")
    assert str(error.value) == (
        "the text holds a lone surrogate, U+D800, at character 2: it is no valid Unicode; decode "
        "the input with errors='replace'"
    )


@pytest.mark.parametrize("bad", [-1, TOKENIZER.vocab_size, 2**63])
def test_ids_outside_of_the_vocabulary(bad: int) -> None:
    message = f"token id {bad}: expected 0 to {TOKENIZER.vocab_size - 1}, the ids in test.gguf"
    for call in (TOKENIZER.token_bytes, TOKENIZER.stream().push, lambda id: TOKENIZER.decode([id])):
        with pytest.raises(OptionError) as error:
            call(bad)
        assert str(error.value) == message


def test_ids_of_any_integer_type() -> None:
    ids = np.array(TOKENIZER.encode("Hello"), np.int32)
    assert TOKENIZER.decode(ids) == "Hello"  # type: ignore[arg-type]
    assert TOKENIZER.stream().push(ids[0]) == TOKENIZER.decode(ids[:1])  # type: ignore[arg-type]


def test_a_character_waits_until_it_is_whole() -> None:
    byte_ids = [TOKENIZER.encode(f"{b:c}")[0] for b in b"a"]
    llama = [_byte_id(byte) for byte in "🦙".encode()]
    stream = TOKENIZER.stream()
    assert [stream.push(id) for id in [*byte_ids, *llama]] == ["a", "", "", "", "🦙"]
    assert stream.flush() == ""


def test_bytes_that_are_no_text() -> None:
    stream = TOKENIZER.stream()
    pieces = [stream.push(_byte_id(byte)) for byte in (0xF0, 0x9F, ord("a"), 0xFF, 0xE2, 0x82)]
    assert pieces == ["", "", "\ufffda", "\ufffd", "", ""]
    assert stream.flush() == "\ufffd"
    # It begins anew.
    assert stream.flush() == ""
    assert stream.push(_byte_id(ord("b"))) == "b"


def _byte_id(byte: int) -> int:
    (id,) = (i for i in range(TOKENIZER.vocab_size) if TOKENIZER.token_bytes(i) == bytes([byte]))
    return id


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40))
def test_text_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == unicodedata.normalize("NFC", text)
    assert b"".join(map(TOKENIZER.token_bytes, ids)) == unicodedata.normalize("NFC", text).encode()


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30), st.booleans())
def test_streaming_is_decoding(ids: list[int], skip_special: bool) -> None:
    stream = TOKENIZER.stream(skip_special=skip_special)
    pieces = [*(stream.push(id) for id in ids), stream.flush()]
    assert "".join(pieces) == TOKENIZER.decode(ids, skip_special=skip_special)


@pytest.mark.parametrize("text", ["a" * 200_000, " " * 200_000 + "a", "=" * 200_000 + "\n" * 9])
def test_one_long_word_takes_no_ages(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(st.sampled_from(["\0", "\0\0", " ", "a", "\n", "é", "1", "'s"]), max_size=12))
def test_words_are_the_same_with_and_without_a_zero_byte(pieces: list[str]) -> None:
    """A text with U+0000 is split in another way than other texts, here in the same places."""
    text = "".join(pieces)
    # Neither letter nor digit nor white space, as U+0000 is, and no merge knows either.
    like_zero = TOKENIZER.encode(text.replace("\0", "\x01"))
    zero, one = (TOKENIZER.encode(c)[0] for c in "\0\x01")
    assert TOKENIZER.encode(text) == [zero if id == one else id for id in like_zero]


def test_published_texts(shared_data: Path) -> None:
    """The texts and ids that come with the vocabulary; some of the texts are not composed."""
    ours = tokenizer("real")
    file = shared_data / "ggml-vocab-qwen2.gguf"
    texts = Path(f"{file}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = Path(f"{file}.out").read_text().split("\n")
    assert len(texts) == len(lines) == 47
    for text, line in zip(texts, lines, strict=True):
        if unicodedata.is_normalized("NFC", text):
            assert ours.encode(text) == [int(id) for id in line.split()], text
