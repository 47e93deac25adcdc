"""Which models have the same tokens, and what is said of those that haven't."""

import pytest

from edgeqwen.api import Model
from edgeqwen.common_tokens import common_tokens, common_vocabulary
from edgeqwen.errors import OptionError
from tests.fakes import VOCAB_SIZE, FakeTokenizer, fake_model


def model(tokenizer: FakeTokenizer | None = None, vocab_size: int = VOCAB_SIZE) -> Model:
    made, engine = fake_model()
    engine.config.vocab_size = vocab_size
    made.tokenizer = tokenizer or FakeTokenizer()  # type: ignore[assignment]
    return made


class OtherToken(FakeTokenizer):
    """Has another text for one id."""

    def __init__(self, id: int, text: bytes) -> None:
        self.changed = {id: text}

    def token_bytes(self, id: int) -> bytes:
        return self.changed.get(id, super().token_bytes(id))


class OtherMerges(FakeTokenizer):
    """Has the same tokens, but leaves out the last ones of every text."""

    def __init__(self, n_kept: int) -> None:
        self.n_kept = n_kept

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return super().encode(text, allow_special=allow_special)[: self.n_kept]


def test_one_vocabulary() -> None:
    assert common_vocabulary(model(), model()) == VOCAB_SIZE


def test_what_is_longer_is_padding() -> None:
    padded = model(vocab_size=VOCAB_SIZE + 128)
    assert common_vocabulary(model(), padded) == VOCAB_SIZE
    assert common_vocabulary(padded, model()) == VOCAB_SIZE


def test_padding_may_be_a_token_of_the_other() -> None:
    # Qwen2.5 has special tokens where Qwen2 has padding.
    later = model(OtherToken(259, b"<|file_sep|>"))
    assert common_vocabulary(model(), later) == common_vocabulary(later, model()) == VOCAB_SIZE


def test_another_token() -> None:
    with pytest.raises(OptionError) as caught:
        common_vocabulary(model(), model(OtherToken(97, b"x\xff")), names=("a.gguf", "b.gguf"))
    assert str(caught.value) == (
        "b.gguf: token 97 is 'x\ufffd', expected 'a' as in a.gguf: models of different "
        "vocabularies can't be compared token by token; take two files of one model, or of one "
        "family"
    )


def test_tokens_of_a_text() -> None:
    text = "<|im_start|>ab"
    assert common_tokens(model(), model(), text, allow_special=True) == [257, 97, 98]
    assert common_tokens(model(), model(), text) == [*text.encode()]


@pytest.mark.parametrize(
    ("kept_by_a", "kept_by_b", "message"),
    [
        (3, 1, r"B cuts the text into other tokens than A: tokens\[1\] is missing, expected 'b': "),
        (1, 3, r"B cuts the text into other tokens than A: tokens\[1\] is 'b', expected missing: "),
    ],
)
def test_other_tokens_of_a_text(kept_by_a: int, kept_by_b: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        common_tokens(model(OtherMerges(kept_by_a)), model(OtherMerges(kept_by_b)), "abc")


def test_where_tokens_differ_so_does_the_vocabulary() -> None:
    class Upper(OtherToken):
        def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
            return super().encode(text.upper())

    with pytest.raises(OptionError, match="B: token 65 is 'a', expected 'A' as in A"):
        common_tokens(model(), model(Upper(65, b"a")), "abc")
