"""The vocabulary: special tokens last, digits one by one, nothing lost."""

from itertools import islice
from random import Random

from tools.guide_model.corpus import mixture
from tools.guide_model.dataset import Dataset, make_dataset, row_length
from tools.guide_model.rendering import SPECIAL_TOKENS, parts
from tools.guide_model.vocabulary import train_tokenizer


def _tokenizer():  # type: ignore[no-untyped-def]
    documents = islice(mixture.documents(Random(1)), 300)
    return train_tokenizer(
        ("".join(piece.text for piece in parts(document)) for document in documents), 700
    )


def test_special_tokens_come_last_in_the_order_of_qwen() -> None:
    tokenizer = _tokenizer()
    assert tokenizer.get_vocab_size() == 700
    ids = [tokenizer.token_to_id(text) for text in SPECIAL_TOKENS]
    assert ids == list(range(700 - len(SPECIAL_TOKENS), 700))


def test_digits_are_single_and_any_text_comes_back() -> None:
    tokenizer = _tokenizer()
    text = "Sort 123 45: größer, 你好, naïve\n\n  x"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text
    assert {"1", "2", "3", "4", "5"} <= {tokenizer.id_to_token(id) for id in ids}


def test_a_dataset_holds_rows_of_whole_documents(tmp_path) -> None:  # type: ignore[no-untyped-def]
    tokenizer = _tokenizer()
    *made, dataset = make_dataset(4, tokenizer, 3)
    assert made == [1, 2, 3]
    assert isinstance(dataset, Dataset)
    tokens, answers = dataset.step(2)
    assert tokens.shape == answers.shape == (8, row_length(2) + 1)
    first = tokenizer.decode(tokens[0].tolist(), skip_special_tokens=False)
    assert first.startswith(("<|im_start|>", "<|fim_prefix|>"))
    answered = tokenizer.decode(tokens[0][answers[0]].tolist(), skip_special_tokens=False)
    assert "user" not in answered
