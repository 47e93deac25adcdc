"""The corpus as rows of tokens: kept with what it was made from, made anew when that changes."""

from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
import tokenizers

from edgeqwen import guide as guide_files
from edgeqwen.text.chat_template import ChatTemplate
from edgeqwen.text.tokenizer import Tokenizer
from tools.guide_model import dataset as dataset_module
from tools.guide_model.corpus import mixture
from tools.guide_model.corpus.about_edgeqwen import guide
from tools.guide_model.corpus.exercise import Example, ask
from tools.guide_model.dataset import (
    Dataset,
    encoded_documents,
    make_dataset,
    make_tokenizer,
    row_length,
)
from tools.guide_model.dataset import source_digest as digest


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    *steps, made = make_dataset(1, make_tokenizer(1, 400), 2)
    assert steps == [1, 2]
    assert isinstance(made, Dataset)
    return made


def test_a_step_has_whole_rows(dataset: Dataset) -> None:
    for step in range(2):
        tokens, answers = dataset.step(step)
        assert tokens.shape == answers.shape == (4096 // row_length(step), row_length(step) + 1)
        assert 0.1 < answers.mean() < 0.9


def test_it_is_read_as_it_was_written(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "dataset.npz", "a source")
    found = Dataset.load(tmp_path / "dataset.npz", "a source")
    assert found is not None
    assert found.digest == dataset.digest
    np.testing.assert_array_equal(found.starts, dataset.starts)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.npz"]


def test_another_source_or_none_gives_nothing(dataset: Dataset, tmp_path: Path) -> None:
    assert Dataset.load(tmp_path / "dataset.npz", "a source") is None
    dataset.save(tmp_path / "dataset.npz", "a source")
    assert Dataset.load(tmp_path / "dataset.npz", "another") is None


def test_the_digest_tells_one_corpus_from_another(dataset: Dataset) -> None:
    other = Dataset(dataset.tokens.copy(), dataset.answers.copy(), dataset.starts)
    assert other.digest == dataset.digest
    other.answers[7] ^= True
    assert other.digest != dataset.digest


def test_the_source_is_seed_steps_texts_and_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert digest(1, 10) == digest(1, 10)
    assert len({digest(1, 10), digest(2, 10), digest(1, 11)}) == 3
    before = digest(1, 10)
    (tmp_path / "more.toml").write_text("x = 1")
    monkeypatch.setattr(dataset_module, "FOLDER", tmp_path)
    assert digest(1, 10) != before


CHECKPOINT = Path(__file__).parents[3] / "tools" / "guide_model" / "edgeqwen-guide"


def _documents() -> list[Example]:
    """Returns conversations of all kinds, and all answers in which marks are written."""
    some = islice(mixture.documents(Random(6)), 150)
    written = [
        ask(topic.questions[0], topic.answer) for topic in guide().topics if "<|" in topic.answer
    ]
    assert written
    asked = ask("What are <|im_start|> and <|im_end|> for?", "To begin a turn and to end it.")
    return [*(document for document in some if isinstance(document, Example)), *written, asked]


def test_the_model_learns_the_tokens_that_it_is_asked_with() -> None:
    documents = _documents()
    library = tokenizers.Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    tokenizer = Tokenizer.from_gguf(guide_files.model_path())
    template = ChatTemplate.from_gguf(guide_files.model_path())
    for document, (ids, answers) in zip(
        documents, encoded_documents(documents, library), strict=True
    ):
        prompt = template.encode(tokenizer, document.messages[:1], tools=document.tools or None)
        if document.messages[0]["role"] == "user":
            assert ids[: len(prompt)] == prompt
            assert answers.index(True) == len(prompt)


def test_marks_in_an_answer_are_shown() -> None:
    tokenizer = Tokenizer.from_gguf(guide_files.model_path())
    library = tokenizers.Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    end = tokenizer.special["<|im_end|>"]
    for document, (ids, answers) in zip(
        _documents(), encoded_documents(_documents(), library), strict=True
    ):
        answered = [id for id, is_answer in zip(ids, answers, strict=True) if is_answer]
        n_answers = sum(message["role"] == "assistant" for message in document.messages)
        assert answered.count(end) == n_answers
        # As the chat does it: what only structures a conversation is left out.
        shown = library.decode(answered, skip_special_tokens=True)
        assert shown == "".join(
            message["content"] for message in document.messages if message["role"] == "assistant"
        )
