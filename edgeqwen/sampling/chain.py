"""The sampler: from logits to one token, through penalties, temperature, top-k, top-p and min-p."""

import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import EdgeqwenError, OptionError
from edgeqwen.model.wanted import Wanted
from edgeqwen.sampling.kernels import LARGEST, largest
from edgeqwen.sampling.options import SamplingOptions
from edgeqwen.sampling.penalties import Penalties

if TYPE_CHECKING:
    from numpy.random import PCG64

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

# Up to here one pass that keeps the candidates sorted is faster than a partition.
_MAX_SORTED = 512


class Sampler:
    """Chooses the tokens of one answer and remembers them for the penalties.

    ``seed``: what the draws follow from, a fresh one where the options have none. The draws are
    PCG64's, so a seed gives the same tokens wherever the logits are the same. Not for use by
    several threads at once.
    """

    def __init__(
        self, options: SamplingOptions, vocab_size: int, *, prompt: Sequence[int] = ()
    ) -> None:
        """``prompt``: its token ids, which the repetition penalty counts too."""
        self.options = options
        self.seed = int.from_bytes(os.urandom(8)) if options.seed is None else options.seed
        self._vocab_size = vocab_size
        self._penalties = Penalties(options, vocab_size, prompt)
        # With temperature 0 only the first of the candidates counts.
        self._k = 1 if options.temperature == 0 else min(options.top_k, vocab_size)
        self._values = np.empty(self._k)
        self._ids = np.empty(self._k, np.int32)
        self._arguments = np.zeros(1, LARGEST)
        self._arguments["skip"] = self._penalties.penalised.ctypes.data
        self._arguments["values"] = self._values.ctypes.data
        self._arguments["ids"], self._arguments["k"] = self._ids.ctypes.data, self._k

    @property
    def wanted(self) -> Wanted | None:
        """What of the next logits decides the token; None where all of them do.

        Logits that aren't among them may be any that are lower.
        """
        penalties = self._penalties
        if self._k == 0 or not penalties.only_lower:
            return None
        return Wanted(
            self._k,
            penalties.penalised,
            self.options.repetition_penalty,
            penalties.most_subtracted,
        )

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """Returns the next token; ``logits``: float32 [vocab_size], not modified.

        Raises EdgeqwenError if a logit is infinite or NaN.
        """
        ids, weights = self._weigh(logits)
        token = int(ids[0] if len(ids) == 1 else ids[self._draw(weights)])
        self._penalties.add(token)
        return token

    def distribution(self, logits: npt.NDArray[np.float32]) -> tuple[Ids, Floats]:
        """Returns the tokens that may come next, int32 [n], and their probabilities, float64 [n].

        They are in the order of their ids. Nothing is drawn, nothing remembered. Raises as
        ``sample`` does.
        """
        ids, weights = self._weigh(logits)
        return ids.copy(), weights / weights.sum()

    def _weigh(self, logits: npt.NDArray[np.float32]) -> tuple[Ids, Floats]:
        """Returns the tokens that may come next and their probabilities up to a factor."""
        if logits.shape != (self._vocab_size,) or logits.dtype != np.float32:
            raise OptionError(
                f"logits are {logits.dtype} {list(logits.shape)}: "
                f"expected float32 [{self._vocab_size}]"
            )
        logits = np.ascontiguousarray(logits)
        if 0 < self._k <= _MAX_SORTED:
            ids, values = self._few_candidates(logits)
        else:
            ids, values = self._many_candidates(logits)
        if len(ids) == 1:
            return ids, np.ones(1)
        weights = np.exp((values - values.max()) / self.options.temperature)
        if self.options.top_p < 1:
            likeliest = _likeliest(values, weights, self.options.top_p)
            ids, weights = ids[likeliest], weights[likeliest]
        if self.options.min_p > 0:
            # The likeliest token's weight is 1.
            kept = weights >= self.options.min_p
            ids, weights = ids[kept], weights[kept]
        return ids, weights

    def _few_candidates(self, logits: npt.NDArray[np.float32]) -> tuple[Ids, Floats]:
        """Returns the ``k`` largest logits after penalties, in the order of their ids."""
        ids, values = self._penalties.apply(logits)
        a = self._arguments
        a["logits"], a["n_logits"] = logits.ctypes.data, len(logits)
        a["more_ids"], a["more_values"], a["n_more"] = ids.ctypes.data, values.ctypes.data, len(ids)
        found = largest(a.ctypes.data)
        if found < 0:
            self._refuse(logits)
        return self._ids[:found], self._values[:found]

    def _many_candidates(self, logits: npt.NDArray[np.float32]) -> tuple[Ids, Floats]:
        """Does the same for many candidates, or for all of them."""
        if not np.isfinite(logits).all():
            self._refuse(logits)
        values = logits.astype(np.float64)
        ids, penalised = self._penalties.apply(logits)
        values[ids] = penalised
        if 0 < self._k < len(values):
            kept = _first(values, self._k, np.partition(values, -self._k)[-self._k])
            return np.flatnonzero(kept).astype(np.int32), values[kept]
        return np.arange(len(values), dtype=np.int32), values

    def _refuse(self, logits: npt.NDArray[np.float32]) -> None:
        bad = np.flatnonzero(~np.isfinite(logits))
        raise EdgeqwenError(
            f"the model's logits are no numbers: logit {bad[0]} is {logits[bad[0]]}, and "
            f"{len(bad)} of {len(logits)} are infinite or NaN; the model file is damaged, or its "
            "numbers overflow"
        )

    @functools.cached_property
    def _generator(self) -> "PCG64":
        # Late: importing it takes as long as reading a short prompt, and the greedy never draw.
        from numpy.random import PCG64

        return PCG64(self.seed)

    def _draw(self, weights: Floats) -> int:
        """Returns an index, drawn with probabilities in proportion to the weights."""
        cumulative = weights.cumsum()
        # 53 random bits, straight from the generator: what numpy makes of them may change.
        uniform = (self._generator.random_raw() >> 11) * 2.0**-53
        index = int(cumulative.searchsorted(uniform * cumulative[-1], side="right"))
        if index == len(weights):
            # Rounding has put the product onto the end itself.
            index = int(cumulative.searchsorted(cumulative[-1]))
        return index


def _likeliest(values: Floats, weights: Floats, share: float) -> npt.NDArray[np.intp]:
    """Returns the places of the largest values whose weights make up a share of the total.

    Of equal ones the first count. The one that reaches the share is among them.
    """
    wanted = share * weights.sum()
    # Sorting takes time, and of many weights the small ones are hardly ever needed.
    for least in (0.0,) if len(weights) <= _MAX_SORTED else (2.0**-10, 2.0**-20, 0.0):
        places = np.flatnonzero(weights >= least)
        places = places[np.argsort(-values[places], kind="stable")]
        cumulative = weights[places].cumsum()
        if cumulative[-1] >= wanted:
            break
    kept = places[: cumulative.searchsorted(wanted) + 1]
    kept.sort()
    return kept


def _first(values: Floats, n: int, least: float) -> npt.NDArray[np.bool_]:
    """Returns which are the ``n`` largest, of which ``least`` is the last; the first of equals."""
    kept = values > least
    equal = np.flatnonzero(values == least)
    kept[equal[: n - np.count_nonzero(kept)]] = True
    return kept
