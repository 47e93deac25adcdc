"""How well a model predicts a text: its perplexity, over windows that overlap."""

import math
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeqwen.api import Model
from edgeqwen.errors import EdgeqwenError, OptionError
from edgeqwen.options import positive_integer, token_ids

# The window where none is given, if the model's context isn't shorter.
CONTEXT = 512


@dataclass(frozen=True, slots=True)
class Perplexity:
    """A model's perplexity of a text. Negative log likelihoods (``nll``) are in nats per token.

    The standard errors (``_se``) take the tokens as independent, which those of a text aren't
    quite; they are None for a single token. The one of the perplexity is the delta method's:
    exp(mean_nll) * mean_nll_se.
    """

    n_tokens: int
    """Tokens of the text."""
    n_scored: int
    """Those that were predicted, each once."""
    n_windows: int
    n_read: int
    """Tokens that the model read; where windows overlap, twice or more."""
    context: int
    stride: int
    mean_nll: float
    mean_nll_se: float | None
    elapsed_s: float

    @property
    def perplexity(self) -> float:
        """exp(mean_nll); infinite where that is more than a float holds."""
        return _exp(self.mean_nll)

    @property
    def perplexity_se(self) -> float | None:
        return None if self.mean_nll_se is None else self.perplexity * self.mean_nll_se

    @property
    def read_tps(self) -> float:
        """Tokens read per second, scoring included."""
        return self.n_read / self.elapsed_s


def perplexity(
    model: Model,
    tokens: Sequence[int],
    *,
    context: int | None = None,
    stride: int | None = None,
    cancelled: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
    running: Callable[[float], None] | None = None,
) -> Perplexity:
    """Returns the model's perplexity of a text: exp of the mean negative log likelihood.

    The text is cut into windows of ``context`` tokens (512, or the model's context if that is
    less), one every ``stride`` tokens (half the window). Each is read anew, and in it only those
    tokens count that no window before has scored, and not its first, which nothing stands before:
    where stride is context, no window counts that token. Others are predicted from at least
    context - stride tokens before them, except in the first window.

    ``tokens``: ids, at least 2. ``progress(done, total)`` counts tokens scored, and just before
    it ``running(value)`` gets their perplexity. When ``cancelled()``, the result is that of the
    tokens scored so far, at least one.

    Raises OptionError for too few tokens and windows that make no sense or exceed the model's
    context, and EdgeqwenError if a logit is infinite or NaN.
    """
    if isinstance(tokens, Sized):
        _check_length(len(tokens))
    ids = np.array(token_ids(tokens, model.config.vocab_size, "tokens"))
    # Again, for an iterator has no length before.
    _check_length(len(ids))
    context, stride = _window(context, stride, model.engine.max_context)
    total = sum(end - first for _, first, end in windows(len(ids), context, stride))
    nll = np.empty(total)
    n_scored = n_windows = n_read = 0
    nll_sum = 0.0
    began = time.perf_counter()
    for begin, first, end in windows(len(ids), context, stride):
        # What a window's last token predicts lies beyond it.
        rows = model.logits_in_parts(
            ids[begin : end - 1].tolist(), first=first - 1 - begin, cancelled=cancelled
        )
        at = first
        with closing(rows):
            for logits in rows:
                n = len(logits)
                part = _negative_log_likelihood(logits, ids[at : at + n])
                nll[n_scored : n_scored + n] = part
                nll_sum += float(part.sum())
                at += n
                n_scored += n
                if running is not None:
                    running(_exp(nll_sum / n_scored))
                if progress is not None:
                    progress(n_scored, total)
        if at > first:
            n_read += at - 1 - begin
            n_windows += 1
        if cancelled is not None and cancelled():
            break
    return _estimate(
        nll[:n_scored],
        n_tokens=len(ids),
        n_windows=n_windows,
        n_read=n_read,
        context=context,
        stride=stride,
        elapsed_s=time.perf_counter() - began,
    )


def _check_length(n_tokens: int) -> None:
    if n_tokens < 2:
        raise OptionError(
            f"the text is too short: tokens has length {n_tokens}, expected at least 2"
        )


def _exp(mean_nll: float) -> float:
    """Returns the perplexity, infinite where it is more than a float holds."""
    try:
        return math.exp(mean_nll)
    except OverflowError:
        return math.inf


def _window(context: int | None, stride: int | None, max_context: int) -> tuple[int, int]:
    """Returns the window and the stride, with their defaults; OptionError for senseless ones."""
    context = min(CONTEXT, max_context) if context is None else positive_integer(context, "context")
    if not 2 <= context <= max_context:
        raise OptionError(
            f"the window has {context} tokens: expected 2 to {max_context}, the model's context"
        )
    stride = context // 2 if stride is None else positive_integer(stride, "stride")
    if stride > context:
        raise OptionError(
            f"stride is {stride}: expected 1 to {context}, the window; a longer one leaves out text"
        )
    return context, stride


def windows(n_tokens: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yields (begin, first, end): a window reads the tokens from begin, and scores first to end."""
    end = 0
    for begin in range(0, n_tokens, stride):
        first, end = max(begin + 1, end), min(begin + context, n_tokens)
        if first < end:
            yield begin, first, end


def _negative_log_likelihood(
    logits: NDArray[np.float32], tokens: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Returns float64 [n] in nats; ``logits``: float32 [n, vocab_size], ``tokens``: int64 [n]."""
    if not np.isfinite(logits).all():
        raise EdgeqwenError(
            "the model's logits are no numbers: some are infinite or NaN; the model file is "
            "damaged, or its numbers overflow"
        )
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    own = x[np.arange(len(x)), tokens]
    likelihood: NDArray[np.float64] = np.log(np.exp(x, out=x).sum(axis=1)) - own
    return likelihood


def _estimate(nll: NDArray[np.float64], **facts: Any) -> Perplexity:
    """Returns the estimate from the tokens' own values."""
    n = len(nll)
    return Perplexity(
        n_scored=n,
        mean_nll=float(nll.mean()),
        mean_nll_se=float(nll.std(ddof=1) / math.sqrt(n)) if n > 1 else None,
        **facts,
    )
