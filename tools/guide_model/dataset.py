"""The corpus as rows of tokens, in the order in which they are learned."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tools.guide_model.corpus import mixture
from tools.guide_model.corpus.exercise import Example, Fill
from tools.guide_model.guide import FOLDER
from tools.guide_model.rendering import parts
from tools.guide_model.vocabulary import train_tokenizer

# Tokens of a step. Most rows are short, as conversations are; some are as long as the context,
# so that late positions are learned too.
TOKENS_PER_STEP = 4096
_LENGTHS = (256, 256, 512, 256, 256, 256, 512, 256, 256, 2048)

# What part of the corpus the vocabulary is made from.
_N_VOCABULARY_DOCUMENTS = 20_000
_N_ENCODED_TOGETHER = 2_000


def row_length(step: int) -> int:
    """Returns the tokens that each row of a step predicts."""
    return _LENGTHS[step % len(_LENGTHS)]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Tokens of all steps one after the other, a row's length and one more for each row."""

    tokens: NDArray[np.uint16]
    # Whether a token is part of an answer.
    answers: NDArray[np.bool_]
    starts: NDArray[np.int64]

    @property
    def digest(self) -> str:
        """What tells one corpus from another."""
        digest = hashlib.sha256(self.tokens.tobytes())
        digest.update(self.answers.tobytes())
        return digest.hexdigest()

    def step(self, step: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """Returns the step's tokens and answers, [rows, row_length + 1] each."""
        here = slice(self.starts[step], self.starts[step + 1])
        width = row_length(step) + 1
        return self.tokens[here].reshape(-1, width), self.answers[here].reshape(-1, width)

    def save(self, path: Path, made_from: str) -> None:
        """Writes all of it to one .npz file, complete or not at all."""
        partial = path.with_suffix(".partial.npz")
        np.savez(
            partial,
            tokens=self.tokens,
            answers=self.answers,
            starts=self.starts,
            made_from=np.array(made_from),
        )
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path, made_from: str) -> "Dataset | None":
        """Reads what ``save`` wrote; None if there is nothing, or it was made from another source.

        ``made_from`` is what ``source_digest`` gives.
        """
        if not path.exists():
            return None
        with np.load(path) as arrays:
            if str(arrays["made_from"]) != made_from:
                return None
            return cls(arrays["tokens"], arrays["answers"], arrays["starts"])


def source_digest(seed: int, n_steps: int) -> str:
    """Returns what changes whenever the corpus may change: of its texts, code and settings."""
    here = Path(__file__).parent
    files = [*here.glob("*.py"), *here.glob("corpus/*.py"), *here.glob("*.toml")]
    files += [*here.glob("*.jinja"), *FOLDER.glob("*.toml")]
    digest = hashlib.sha256(f"{seed} {n_steps}".encode())
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def make_tokenizer(seed: int, vocab_size: int) -> Tokenizer:
    """Returns the vocabulary of the corpus that ``make_dataset`` writes with the same seed."""
    documents = islice(mixture.documents(Random(seed)), _N_VOCABULARY_DOCUMENTS)
    return train_tokenizer(
        ("".join(piece.text for piece in parts(document)) for document in documents), vocab_size
    )


def make_dataset(seed: int, tokenizer: Tokenizer, n_steps: int) -> Iterator[int | Dataset]:
    """Yields the number of the steps that are complete, and at last the dataset."""
    encoded = _encoded(Random(seed), tokenizer)
    tokens: list[NDArray[np.uint16]] = []
    answers: list[NDArray[np.bool_]] = []
    starts = [0]
    for step in range(n_steps):
        width = row_length(step) + 1
        n_rows = TOKENS_PER_STEP // row_length(step)
        for _ in range(n_rows):
            row_tokens, row_answers = _row(encoded, width)
            tokens.append(row_tokens)
            answers.append(row_answers)
        starts.append(starts[-1] + n_rows * width)
        yield step + 1
    yield Dataset(np.concatenate(tokens), np.concatenate(answers), np.array(starts))


def _row(
    encoded: Iterator[tuple[list[int], list[bool]]], width: int
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Returns documents one after the other; the last is cut where the row ends."""
    tokens: list[int] = []
    answers: list[bool] = []
    while len(tokens) < width:
        more_tokens, more_answers = next(encoded)
        tokens += more_tokens
        answers += more_answers
    return np.array(tokens[:width], np.uint16), np.array(answers[:width], np.bool_)


def _encoded(random: Random, tokenizer: Tokenizer) -> Iterator[tuple[list[int], list[bool]]]:
    """Yields the tokens of document after document, and which of them are answers."""
    documents = mixture.documents(random)
    while True:
        yield from encoded_documents(
            [next(documents) for _ in range(_N_ENCODED_TOGETHER)], tokenizer
        )


def encoded_documents(
    documents: Iterable[Example | Fill], tokenizer: Tokenizer
) -> Iterator[tuple[list[int], list[bool]]]:
    """Yields the tokens of each document, and which of them are answers.

    Only marks are special tokens, as when the model is used: what is written in questions and
    answers isn't.
    """
    written = Tokenizer.from_str(tokenizer.to_str())
    # This takes special tokens for text; <tool_call>, which is none to the library, stays a token.
    written.encode_special_tokens = True
    pieces = [list(parts(document)) for document in documents]
    texts = [piece.text for document in pieces for piece in document if not piece.is_mark]
    encodings = iter(written.encode_batch(texts, add_special_tokens=False))
    for document in pieces:
        tokens: list[int] = []
        answers: list[bool] = []
        for piece in document:
            mark = tokenizer.token_to_id(piece.text) if piece.is_mark else None
            ids = next(encodings).ids if mark is None else [mark]
            tokens += ids
            answers += [piece.is_answer] * len(ids)
        yield tokens, answers
