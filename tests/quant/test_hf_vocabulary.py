"""Vocabularies: both forms of a tokenizer give the same, and what contradicts itself is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeqwen.errors import EdgeqwenError, FileFormatError, UnsupportedError
from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant.hf_vocabulary import TokenType, Vocabulary, read_vocabulary
from tests.hf_tokenizers import NOT_SPECIAL, SHARED_VOCABULARY, SPECIAL, tokenizer_files

Change = Callable[[dict[str, Any]], object]


def write(folder: Path, kind: str = "small") -> dict[str, Any]:
    files, _ = tokenizer_files(kind)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    settings: dict[str, Any] = json.loads(files["tokenizer_config.json"])
    return settings


def read(folder: Path, vocab_size: int = 448) -> Vocabulary:
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    return read_vocabulary(folder, settings, vocab_size)


def change(path: Path, how: Change) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    how(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_tokens_types_and_padding(tmp_path: Path) -> None:
    write(tmp_path)
    found = read(tmp_path, 448)
    assert len(found.tokens) == len(found.types) == 448
    first = found.tokens.index(SPECIAL[0])
    assert found.tokens[first : first + 22] == [*SPECIAL, *NOT_SPECIAL]
    assert set(found.types[:first]) == {TokenType.NORMAL}
    assert found.types[first : first + 14] == [TokenType.CONTROL] * 14
    assert found.types[first + 14 : first + 22] == [TokenType.USER_DEFINED] * 8
    n = first + 22
    assert found.tokens[n:] == [f"[PAD{i}]" for i in range(n, 448)]
    assert found.types[n:] == [TokenType.UNUSED] * (448 - n)
    assert found.ids["<|im_end|>"] == first + 2


def test_both_forms_give_the_same(tmp_path: Path) -> None:
    fast, slow = tmp_path / "fast", tmp_path / "slow"
    fast.mkdir()
    slow.mkdir()
    write(fast, "small")
    write(slow, "small-slow")
    assert (slow / "vocab.json").exists()
    assert read(fast) == read(slow)


def test_merges_in_either_form(tmp_path: Path) -> None:
    write(tmp_path)
    expected = read(tmp_path)

    def join(content: dict[str, Any]) -> None:
        merges = content["model"]["merges"]
        assert isinstance(merges[0], list)
        content["model"]["merges"] = [" ".join(merge) for merge in merges]

    change(tmp_path / "tokenizer.json", join)
    assert read(tmp_path) == expected


def test_added_tokens_that_the_vocabulary_lists_too(tmp_path: Path) -> None:
    write(tmp_path)
    expected = read(tmp_path)
    end = expected.ids["<|im_end|>"]
    change(
        tmp_path / "tokenizer.json",
        lambda content: content["model"]["vocab"].update({"<|im_end|>": end}),
    )
    assert read(tmp_path) == expected


def test_the_real_vocabulary(tmp_path: Path) -> None:
    if not SHARED_VOCABULARY.exists():
        pytest.skip("needs the real vocabulary in ../shared/data")
    write(tmp_path, "real")
    found = read(tmp_path, 151936)
    with GgufFile.open(SHARED_VOCABULARY) as file:
        published = file.metadata
    assert found.merges == published["tokenizer.ggml.merges"].tolist()
    tokens = published["tokenizer.ggml.tokens"].tolist()
    # The published file has Qwen2's three added tokens; Qwen2.5 has 22.
    assert found.tokens[:151646] == tokens[:151646]
    assert found.tokens[151646:151665] == [*SPECIAL[3:], *NOT_SPECIAL]
    assert found.tokens[151665:] == tokens[151665:]
    assert found.types[:151646] == published["tokenizer.ggml.token_type"].tolist()[:151646]


def model(**values: Any) -> Change:
    return lambda content: content["model"].update(values)


def vocab(**values: Any) -> Change:
    return lambda content: content["model"]["vocab"].update(values)


def first_added(**values: Any) -> Change:
    return lambda content: content["added_tokens"][0].update(values)


def splitting(*parts: Any) -> Change:
    return lambda content: content.update(
        pre_tokenizer={"type": "Sequence", "pretokenizers": list(parts)}
    )


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        (lambda c: c.pop("model"), FileFormatError, "model is None, expected an object"),
        (model(type="WordPiece"), UnsupportedError, "type 'WordPiece'; only 'BPE' can be"),
        (model(byte_fallback=True), UnsupportedError, "model.byte_fallback is True, which GGUF"),
        (model(ignore_merges=True), UnsupportedError, "model.ignore_merges is True"),
        (model(dropout=0.1), UnsupportedError, "model.dropout is 0.1"),
        (model(vocab=["a"]), FileFormatError, "model.vocab is a list of 1, expected an object"),
        (model(merges={}), FileFormatError, "model.merges is an object, expected a list"),
        (model(merges=["a b c"]), FileFormatError, "'a b c' among the merges, expected two"),
        (model(merges=[["a", 1]]), FileFormatError, "a list of 2 among the merges, expected two"),
        (model(merges=[["a ", "b"]]), FileFormatError, "a list of 2 among the merges"),
        (model(merges=["q z"]), FileFormatError, "merge 0 is 'q z', but 'qz' is no token"),
        (model(merges=["中 b"]), FileFormatError, "merge 0 is '中 b', but '中' is no token"),
        (vocab(new=5), FileFormatError, "and 'new' both have the id 5"),
        (vocab(new=448), FileFormatError, "'new' has the id 448, expected 0 to 447 (vocab_size"),
        (vocab(new=-1), FileFormatError, "the token 'new' has the id -1, expected 0 to 447"),
        (vocab(new=True), FileFormatError, "the token 'new' has the id True, expected 0 to 447"),
        (vocab(new=1.0), FileFormatError, "the token 'new' has the id 1.0, expected 0 to 447"),
        (vocab(new=10**30), FileFormatError, "has the id an integer of 100 bits, expected 0"),
        (vocab(**{"neu ü": 440}), UnsupportedError, "the token 440, 'neu ü', isn't written in"),
        (vocab(**{"": 440}), UnsupportedError, "the token 440, '', isn't written in the letters"),
        (vocab(**{"[PAD441]": 440}), FileFormatError, "'[PAD441]' has two ids, 440 and 441"),
        (first_added(id=0), FileFormatError, "and '<|endoftext|>' both have the id 0"),
        (first_added(id="5"), FileFormatError, "an object among the added tokens, expected id"),
        (first_added(special=1), FileFormatError, "an object among the added tokens"),
        (first_added(content=None), FileFormatError, "an object among the added tokens"),
        (first_added(content=""), FileFormatError, "is '', expected text that UTF-8 can say"),
        (first_added(content="\ud800"), FileFormatError, "expected text that UTF-8 can say"),
        (lambda c: c.update(added_tokens={}), FileFormatError, "added_tokens is an object"),
        (lambda c: c.update(added_tokens=[3]), FileFormatError, "3 among the added tokens"),
        (lambda c: c.pop("pre_tokenizer"), UnsupportedError, "pre_tokenizer consists of None"),
        (splitting(), UnsupportedError, "pre_tokenizer consists of nothing, expected 'Split'"),
        (splitting({"type": "ByteLevel"}), UnsupportedError, "consists of 'ByteLevel', expected"),
        (
            splitting({"type": "Split", "pattern": {"Regex": r"\d+"}}, {"type": "ByteLevel"}),
            UnsupportedError,
            r"splits text at '\\d+', which isn't what Qwen2 does",
        ),
        (
            splitting({"type": "Split", "pattern": 5}, {"type": "ByteLevel"}),
            UnsupportedError,
            "splits text at None, which isn't what Qwen2 does",
        ),
    ],
)
def test_tokenizers_that_are_refused(
    tmp_path: Path, how: Change, kind: type[EdgeqwenError], message: str
) -> None:
    write(tmp_path)
    path = tmp_path / "tokenizer.json"
    change(path, how)
    with pytest.raises(kind) as error:
        read(tmp_path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_vocabulary_larger_than_the_embedding(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(FileFormatError, match="expected 0 to 299"):
        read(tmp_path, 300)


def test_merges_txt(tmp_path: Path) -> None:
    write(tmp_path, "small-slow")
    expected = read(tmp_path)
    path = tmp_path / "merges.txt"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert read(tmp_path) == expected
    path.write_text(text.removeprefix("#version: 0.2\n"), encoding="utf-8")
    assert read(tmp_path) == expected
    path.write_text("a b c\n")
    with pytest.raises(FileFormatError, match=r"merges.txt: 'a b c' among the merges"):
        read(tmp_path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(FileFormatError, match=r"merges.txt: not UTF-8 text \(byte 0\)"):
        read(tmp_path)
    path.unlink()
    with pytest.raises(FileFormatError, match=r"no tokenizer; expected tokenizer.json, or vocab"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (None, "added_tokens_decoder is None, expected the added tokens by id"),
        ({"x": {}}, "added_tokens_decoder holds 'x': an object, expected an id and a token"),
        ({"5": 5}, "added_tokens_decoder holds '5': 5, expected an id and a token"),
        ({"99999999999": {}}, "added_tokens_decoder holds '99999999999': an object"),
        ({"400": {"content": 4}}, "an object among the added tokens, expected id, content and"),
    ],
)
def test_added_tokens_of_the_slow_form(tmp_path: Path, entries: Any, message: str) -> None:
    settings = write(tmp_path, "small-slow")
    settings["added_tokens_decoder"] = entries
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(FileFormatError) as error:
        read(tmp_path)
    assert message in str(error.value)
