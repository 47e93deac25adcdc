"""The corpus as rows of tokens: kept with what it was made from, made anew when that changes."""

from pathlib import Path

import numpy as np
import pytest

from tools.guide_model import dataset as dataset_module
from tools.guide_model.dataset import Dataset, make_dataset, make_tokenizer, row_length
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
