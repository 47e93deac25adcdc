"""What a vocabulary must hold, and what is said of one that doesn't."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.gguf_arrays import NumberArray, StringArray
from edgeqwen.gguf_file import GgufFile
from edgeqwen.text.byte_level import CHARACTER_OF_BYTE, bytes_of
from edgeqwen.text.tokenizer import Tokenizer
from edgeqwen.text.vocabulary import MAX_SPECIAL, MAX_SPECIAL_LENGTH, Vocabulary
from tests.gguf_samples import byte_alphabet
from tests.text.vocabularies import (
    BYTE,
    CONTROL,
    NORMAL,
    USER_DEFINED,
    vocab_metadata,
    write_vocab_gguf,
)

TOKENS: list[str] = vocab_metadata()["tokenizer.ggml.tokens"]
TYPES: list[int] = vocab_metadata()["tokenizer.ggml.token_type"]
MERGES: list[str] = vocab_metadata()["tokenizer.ggml.merges"]
N = len(TOKENS)
AGAIN = "convert the checkpoint again"


def changed(values: list[Any], index: int, value: Any) -> list[Any]:
    return [*values[:index], value, *values[index + 1 :]]


def refusal(error_type: type[Exception] = FileFormatError, **changes: Any) -> str:
    with pytest.raises(error_type) as error:
        Tokenizer(Vocabulary.from_gguf(vocab_metadata(**changes), source="a.gguf"))
    assert type(error.value) is error_type
    return str(error.value)


DAMAGE: Any = pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": None},
            "a.gguf: tokenizer.ggml.model is missing: the file holds no tokenizer; "
            f"{AGAIN} together with its tokenizer files",
        ),
        (
            {"tokens": None},
            f"a.gguf: tokenizer.ggml.tokens is missing; {AGAIN} with its tokenizer files",
        ),
        (
            {"merges": None},
            f"a.gguf: tokenizer.ggml.merges is missing; {AGAIN} with its tokenizer files",
        ),
        (
            {"token_type": None},
            "a.gguf: tokenizer.ggml.token_type is missing, so special tokens can't be told from "
            f"text; {AGAIN}",
        ),
        ({"tokens": []}, "a.gguf: tokenizer.ggml.tokens is empty, expected tokens"),
        (
            {"tokens": "abc"},
            "a.gguf: tokenizer.ggml.tokens is no array of strings; the file is damaged",
        ),
        (
            {"tokens": [1, 2]},
            "a.gguf: tokenizer.ggml.tokens is no array of strings; the file is damaged",
        ),
        (
            {"merges": 7},
            "a.gguf: tokenizer.ggml.merges is no array of strings; the file is damaged",
        ),
        (
            {"token_type": TYPES[:-1]},
            f"a.gguf: tokenizer.ggml.token_type is an array of {N - 1}, expected {N} numbers, "
            "one for each token",
        ),
        (
            {"token_type": 1},
            f"a.gguf: tokenizer.ggml.token_type is no array, expected {N} numbers, "
            "one for each token",
        ),
        (
            {"token_type": changed(TYPES, 3, 9)},
            "a.gguf: tokenizer.ggml.token_type[3] is 9, expected 1 to 6",
        ),
        (
            {"tokens": changed(TOKENS, 300, TOKENS[3])},
            f"a.gguf: tokenizer.ggml.tokens holds {TOKENS[3]!r} twice, as token 3 and as token "
            "300, expected every token once",
        ),
        (
            {"tokens": changed(TOKENS, TOKENS.index("Ġ"), "ĠĠĠĠĠ")},
            "a.gguf: tokenizer.ggml.tokens lacks 'Ġ', the token of the byte 0x20, expected one "
            "for each of the 256 bytes; the file is damaged",
        ),
        (
            {"tokens": changed(TOKENS, TOKENS.index("<|im_start|>"), "")},
            f"a.gguf: the special token {TOKENS.index('<|im_start|>')} is empty, expected text",
        ),
        (
            {"merges": changed(MERGES, 4, "xyz q")},
            "a.gguf: tokenizer.ggml.merges[4] is 'xyz q', but 'xyz' is not in "
            "tokenizer.ggml.tokens",
        ),
        (
            {"merges": changed(MERGES, 4, "q x")},
            "a.gguf: tokenizer.ggml.merges[4] is 'q x', but 'qx' is not in tokenizer.ggml.tokens",
        ),
        (
            {"merges": changed(MERGES, 5, "abc")},
            "a.gguf: tokenizer.ggml.merges[5] is 'abc', expected two tokens with a space between",
        ),
        (
            {"merges": changed(MERGES, 5, "a b c")},
            "a.gguf: tokenizer.ggml.merges[5] is 'a b c', expected two tokens with a space between",
        ),
        (
            {"eos_token_id": N},
            f"a.gguf: tokenizer.ggml.eos_token_id is {N}, expected an id from 0 to {N - 1}",
        ),
        (
            {"eot_token_id": "x"},
            f"a.gguf: tokenizer.ggml.eot_token_id is 'x', expected an id from 0 to {N - 1}",
        ),
        (
            {"token_type": changed(TYPES, 300, BYTE)},
            f"a.gguf: token 300 is {TOKENS[300]!r} and has the type BYTE, expected '<0x00>' to "
            "'<0xFF>'",
        ),
    ],
)


@DAMAGE
def test_damaged(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes) == message


@DAMAGE
def test_damaged_in_a_file(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Arrays from a file aren't lists: they are looked at in other ways."""
    path = tmp_path / "a.gguf"
    write_vocab_gguf(path, **changes)
    with GgufFile.open(path) as file:
        if changes.get("tokens") == []:
            # What gguf's writer leaves out.
            file.metadata["tokenizer.ggml.tokens"] = StringArray.of([])
        with pytest.raises(FileFormatError) as error:
            Tokenizer.from_gguf(file)
    assert str(error.value).replace(f"{path}:", "a.gguf:") == message


@pytest.mark.parametrize("kind", ["u1", "i1", "<u2", "<i4", "<u8", "<i8", "<f4", "<f8"])
def test_types_as_any_kind_of_number(kind: str) -> None:
    types = NumberArray(np.array(TYPES, kind))
    found = Vocabulary.from_gguf(vocab_metadata(token_type=types), source="a.gguf")
    expected = Vocabulary.from_gguf(vocab_metadata(), source="a.gguf")
    for name in ("control", "user_defined", "unused", "byte_ids", "eos_ids"):
        assert getattr(found, name) == getattr(expected, name)


@pytest.mark.parametrize(
    ("kind", "bad", "shown"),
    [
        *(("<i4", 0, "0"), ("<i4", 7, "7"), ("<i4", -1, "-1"), ("<u8", 2**64 - 1, str(2**64 - 1))),
        *(
            ("<f4", 1.5, "1.5"),
            ("<f4", np.nan, "nan"),
            ("<f8", np.inf, "inf"),
            ("i1", -128, "-128"),
        ),
        *(("<i8", 257, "257"), ("<i8", 2**32 + 1, str(2**32 + 1)), ("?", False, "False")),
    ],
)
def test_types_that_there_are_not(kind: str, bad: Any, shown: str) -> None:
    types = np.ones(N, kind)
    types[[3, 7]] = bad
    assert refusal(token_type=NumberArray(types)) == (
        f"a.gguf: tokenizer.ggml.token_type[3] is {shown}, expected 1 to 6"
    )


@pytest.mark.parametrize("key", ["tokens", "merges"])
def test_strings_that_utf_8_can_not_say(key: str) -> None:
    assert refusal(**{key: [*TOKENS, "a\ud800"]}).startswith(
        f"a.gguf: tokenizer.ggml.{key} holds 'a\\ud800', a lone surrogate in it, expected text "
        "that UTF-8 can say"
    )


def test_too_many_special_tokens() -> None:
    tokens = TOKENS + [f"<{i}>" for i in range(MAX_SPECIAL)]
    types = TYPES + [CONTROL] * MAX_SPECIAL
    assert refusal(tokens=tokens, token_type=types) == (
        "a.gguf: tokenizer.ggml.token_type marks 4118 tokens as special (CONTROL or USER_DEFINED), "
        "expected at most 4096; the file is damaged"
    )


def test_other_kinds_of_tokenizers() -> None:
    assert refusal(UnsupportedError, model="llama") == (
        "a.gguf: tokenizer.ggml.model is 'llama', expected 'gpt2' (byte-level BPE), which every "
        "Qwen2.5 model has"
    )
    for pre in ("llama-bpe", "qwen35", 3):
        assert refusal(UnsupportedError, pre=pre) == (
            f"a.gguf: tokenizer.ggml.pre is {pre!r}, expected 'qwen2' or 'deepseek-r1-qwen': the "
            "file's text would be split in a way that this version doesn't know"
        )


@pytest.mark.parametrize("pre", ["qwen2", "qwen2.5", "qwen2.5-coder", "deepseek-r1-qwen", None])
def test_known_pre_tokenizers(pre: str | None) -> None:
    Vocabulary.from_gguf(vocab_metadata(pre=pre), source="a.gguf")


def test_missing_pre_tokenizer_of_another_architecture() -> None:
    metadata = {**vocab_metadata(pre=None), "general.architecture": "llama"}
    with pytest.raises(UnsupportedError, match=r"tokenizer.ggml.pre is None"):
        Vocabulary.from_gguf(metadata, source="a.gguf")


def test_no_merges_are_fine_where_tokens_are_single_bytes() -> None:
    tokens = [*byte_alphabet(), "<|im_end|>"]
    changes = {"tokens": tokens, "token_type": [NORMAL] * 256 + [CONTROL], "eos_token_id": 256}
    metadata = vocab_metadata(merges=None, bos_token_id=None, **changes)
    tokenizer = Tokenizer(Vocabulary.from_gguf(metadata, source="a.gguf"))
    assert tokenizer.decode(tokenizer.encode("nä")) == "nä"
    assert (len(tokenizer.encode("nä")), tokenizer.eos_ids) == (3, {256})


def test_ends_of_answers() -> None:
    ids = {token: i for i, token in enumerate(TOKENS)}
    enders = {"<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"}
    vocabulary = Vocabulary.from_gguf(
        vocab_metadata(eos_token_id=5, eot_token_id=6), source="a.gguf"
    )
    assert vocabulary.eos_ids == {5, 6, *(ids[text] for text in enders)}
    # Ordinary tokens that look like them are none.
    ordinary = [
        NORMAL if token in enders else kind for token, kind in zip(TOKENS, TYPES, strict=True)
    ]
    vocabulary = Vocabulary.from_gguf(
        vocab_metadata(eos_token_id=None, token_type=ordinary), source="a.gguf"
    )
    assert vocabulary.eos_ids == frozenset()


@pytest.mark.parametrize("bos", [None, -1, N, 2**32 - 1, "x"])
def test_no_usable_bos(bos: Any) -> None:
    metadata = vocab_metadata(bos_token_id=bos)
    assert Vocabulary.from_gguf(metadata, source="a.gguf").bos_id is None


def test_padding_is_unused_whatever_its_type() -> None:
    padding = [i for i, token in enumerate(TOKENS) if token.startswith("[PAD")]
    types = [USER_DEFINED if i in padding else kind for i, kind in enumerate(TYPES)]
    vocabulary = Vocabulary.from_gguf(vocab_metadata(token_type=types), source="a.gguf")
    assert vocabulary.unused == set(padding)
    assert len(padding) == 5


def test_byte_tokens() -> None:
    tokens, types = [*TOKENS, "<0xE4>"], [*TYPES, BYTE]
    vocabulary = Vocabulary.from_gguf(
        vocab_metadata(tokens=tokens, token_type=types), source="a.gguf"
    )
    assert Tokenizer(vocabulary).token_bytes(len(TOKENS)) == b"\xe4"


def test_alphabet() -> None:
    assert [CHARACTER_OF_BYTE[byte] for byte in range(256)] == byte_alphabet()
    assert bytes_of("ĠÃ¤") == " ä".encode()
    assert bytes_of("a b") == b"a b"
    assert bytes_of("｜") == "｜".encode()


def test_real_vocabulary(shared_data: Path) -> None:
    tokenizer = Tokenizer.from_gguf(shared_data / "ggml-vocab-qwen2.gguf")
    assert tokenizer.vocab_size == 151_936
    # Its padding is typed USER_DEFINED.
    assert tokenizer.special == {
        "<|endoftext|>": 151_643,
        "<|im_start|>": 151_644,
        "<|im_end|>": 151_645,
    }
    assert tokenizer.eos_ids == {151_643, 151_645}
    assert 151_646 not in tokenizer.encode("[PAD151646]", allow_special=True)
    assert tokenizer.decode([151_646]) == ""


def test_a_special_token_that_is_a_text() -> None:
    token = "<" + "x" * MAX_SPECIAL_LENGTH
    assert refusal(tokens=[*TOKENS, token], token_type=[*TYPES, CONTROL]) == (
        f"a.gguf: the special token {len(TOKENS)} has 257 characters, expected at most 256; the "
        "file is damaged"
    )


def test_messages_stay_short() -> None:
    long = "y" * 10**6
    twice = refusal(tokens=[*TOKENS, long, long], token_type=[*TYPES, NORMAL, NORMAL])
    for message in (refusal(UnsupportedError, model=long), twice):
        assert len(message) < 400
