"""How well a model predicts a text: its perplexity, over windows that overlap."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence, Sized
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from edgeqwen.api import Model
from edgeqwen.errors import OptionError
from edgeqwen.likelihood import exponential, log_probabilities, mean_and_error
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
        return exponential(self.mean_nll)

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
    text = WindowedText.of(
        tokens,
        vocab_size=model.config.vocab_size,
        max_context=model.engine.max_context,
        context=context,
        stride=stride,
    )
    total = text.n_scored
    nll = np.empty(total)
    n_scored = n_windows = n_read = 0
    nll_sum = 0.0
    began = time.perf_counter()
    for window in text.windows():
        n_before = n_scored
        with closing(scored_logits(model, text, window, cancelled=cancelled)) as parts:
            for ids, logits in parts:
                part = -log_probabilities(logits)[np.arange(len(ids)), ids]
                nll[n_scored : n_scored + len(ids)] = part
                nll_sum += float(part.sum())
                n_scored += len(ids)
                if running is not None:
                    running(exponential(nll_sum / n_scored))
                if progress is not None:
                    progress(n_scored, total)
        if n_scored > n_before:
            n_read += window.first - 1 - window.begin + n_scored - n_before
            n_windows += 1
        if cancelled is not None and cancelled():
            break
    mean_nll, mean_nll_se = mean_and_error(nll[:n_scored])
    return Perplexity(
        n_tokens=len(text.ids),
        n_scored=n_scored,
        n_windows=n_windows,
        n_read=n_read,
        context=text.context,
        stride=text.stride,
        mean_nll=mean_nll,
        mean_nll_se=mean_nll_se,
        elapsed_s=time.perf_counter() - began,
    )


class Window(NamedTuple):
    """Reads the tokens from ``begin`` on, and scores those from ``first`` to before ``end``."""

    begin: int
    first: int
    end: int


def windows(n_tokens: int, context: int, stride: int) -> Iterator[Window]:
    """Yields the windows of a text; each scores what none before it has scored."""
    end = 0
    for begin in range(0, n_tokens, stride):
        first, end = max(begin + 1, end), min(begin + context, n_tokens)
        if first < end:
            yield Window(begin, first, end)


@dataclass(frozen=True, slots=True, eq=False)
class WindowedText:
    """A text and how it is cut into windows, all checked. ``ids``: int64 [n_tokens]."""

    ids: NDArray[np.int64]
    context: int
    stride: int

    @classmethod
    def of(
        cls,
        tokens: Sequence[int],
        *,
        vocab_size: int,
        max_context: int,
        context: int | None,
        stride: int | None,
    ) -> Self:
        """Raises OptionError, as ``perplexity`` describes it."""
        if isinstance(tokens, Sized):
            _check_length(len(tokens))
        ids = np.array(token_ids(tokens, vocab_size, "tokens"))
        # Again, for an iterator has no length before.
        _check_length(len(ids))
        return cls(ids, *_window_sizes(context, stride, max_context))

    def windows(self) -> Iterator[Window]:
        return windows(len(self.ids), self.context, self.stride)

    @property
    def n_scored(self) -> int:
        """The tokens that all windows score together."""
        return sum(window.end - window.first for window in self.windows())


def scored_logits(
    model: Model,
    text: WindowedText,
    window: Window,
    *,
    cancelled: Callable[[], bool] | None = None,
) -> Generator[tuple[NDArray[np.int64], NDArray[np.float32]], None, None]:
    """Yields the tokens that a window scores, int64 [n], and the logits that predict them.

    The logits are float32 [n, vocab_size], a few tokens at a time. Ends early when ``cancelled()``.
    """
    # What a window's last token predicts lies beyond it.
    read = text.ids[window.begin : window.end - 1].tolist()
    at = window.first
    rows = model.logits_in_parts(read, first=at - 1 - window.begin, cancelled=cancelled)
    with closing(rows):
        for logits in rows:
            yield text.ids[at : at + len(logits)], logits
            at += len(logits)


def _check_length(n_tokens: int) -> None:
    if n_tokens < 2:
        raise OptionError(
            f"the text is too short: tokens has length {n_tokens}, expected at least 2"
        )


def _window_sizes(context: int | None, stride: int | None, max_context: int) -> tuple[int, int]:
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
