"""Penalties on tokens that were there before, kept for those few ids and not for all."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import OptionError
from edgeqwen.sampling.options import SamplingOptions


class Penalties:
    """The ids that are penalised, and how.

    As in Hugging Face's generation, the repetition penalty counts prompt and answer: a positive
    logit is divided by it, a negative one multiplied. As in OpenAI's API, presence and frequency
    penalties count the answer only, and are subtracted, once and once for each occurrence.
    """

    def __init__(self, options: SamplingOptions, vocab_size: int, prompt: Sequence[int]) -> None:
        self._repetition = options.repetition_penalty
        self._presence = options.presence_penalty
        self._frequency = options.frequency_penalty
        self._subtracts = self._presence != 0 or self._frequency != 0
        self._active = self._subtracts or self._repetition != 1
        seen = np.unique(np.asarray(prompt, np.int64)) if len(prompt) else np.empty(0, np.int64)
        if len(seen) and not (seen[0] >= 0 and seen[-1] < vocab_size):
            bad = seen[0] if seen[0] < 0 else seen[-1]
            raise OptionError(f"prompt holds token {bad}: expected ids from 0 to {vocab_size - 1}")
        if self._repetition == 1:
            seen = seen[:0]
        self._n_ids = len(seen)
        self._ids = np.empty(max(256, 2 * self._n_ids), np.int32)
        self._ids[: self._n_ids] = seen
        self._counts = np.zeros(len(self._ids))
        self._place: dict[int, int] = {int(id): i for i, id in enumerate(seen)}
        self.penalised = np.zeros(vocab_size, np.uint8)
        """uint8 [vocab_size]: 1 for the ids that ``apply`` returns."""
        self.penalised[seen] = 1

    @property
    def only_lower(self) -> bool:
        """Whether no penalty makes a logit larger."""
        return self._repetition >= 1 and self._presence >= 0 and self._frequency >= 0

    @property
    def most_subtracted(self) -> float:
        """The most that presence and frequency penalties subtract from any logit."""
        if not self._subtracts or not self._n_ids:
            return 0.0
        return float(self._presence + self._frequency * self._counts[: self._n_ids].max())

    def add(self, token: int) -> None:
        """Counts a token of the answer."""
        if not self._active:
            return
        place = self._place.setdefault(token, self._n_ids)
        if place == self._n_ids:
            if place == len(self._ids):
                self._ids = np.resize(self._ids, 2 * place)
                self._counts = np.concatenate([self._counts, np.zeros(place)])
            self._ids[place] = token
            self.penalised[token] = 1
            self._n_ids += 1
        self._counts[place] += 1

    def apply(
        self, logits: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """Returns the penalised ids, int32 [m], in no order, and their logits, float64 [m]."""
        ids = self._ids[: self._n_ids]
        values = logits[ids].astype(np.float64)
        if self._repetition != 1:
            values = np.where(values > 0, values / self._repetition, values * self._repetition)
        if self._subtracts:
            counts = self._counts[: self._n_ids]
            values -= self._presence * (counts > 0) + self._frequency * counts
        return ids, values
