"""How far a model's predictions of a text are from another's: KL divergence and what goes with it.

Both models read the same window at the same time, a few tokens in turn: so the logits of a few
tokens are in memory, never those of a whole text, and nothing is rounded or written to a file in
between. The price is that the weights of both models are in memory, too.
"""

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgeqwen.api import Model
from edgeqwen.common_tokens import NAMES, common_vocabulary
from edgeqwen.likelihood import (
    Estimate,
    Floats,
    kl_divergence,
    log_probabilities,
    mean_and_error,
)
from edgeqwen.perplexity import WindowedText, scored_logits


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """A model B against a reference A: arrays [n], a value for every token that was scored.

    ``nll_a``, ``nll_b``: the negative log likelihood that each gives to the text's own token, in
    nats. ``kl``: the KL divergence of B's distribution from A's, in nats. ``same_top``: whether
    both find the same token likeliest.
    """

    nll_a: Floats
    nll_b: Floats
    kl: Floats
    same_top: NDArray[np.bool_]

    @classmethod
    def of(cls, log_p: Floats, log_q: Floats, tokens: NDArray[np.int64]) -> Self:
        """``log_p``, ``log_q``: log probabilities of A and B, float64 [n, n_vocab]."""
        rows = np.arange(len(tokens))
        return cls(
            nll_a=-log_p[rows, tokens],
            nll_b=-log_q[rows, tokens],
            kl=kl_divergence(log_p, log_q),
            same_top=log_p.argmax(axis=1) == log_q.argmax(axis=1),
        )

    @classmethod
    def joined(cls, parts: "Sequence[Differences]") -> Self:
        return cls(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            )
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model B against a reference A on a text; nats are nats per token.

    Standard errors take the tokens as independent, which those of a text aren't quite. Those of
    changes from A to B are of differences token by token: what makes a token harder than another
    does so for both models, and cancels.
    """

    n_tokens: int
    """Tokens of the text."""
    n_scored: int
    """Those that were predicted, each once."""
    context: int
    stride: int
    n_vocab: int
    """Ids over which the two were compared: those that both models have."""
    nll_a: Estimate
    """Negative log likelihood of the text's own tokens, in nats."""
    nll_b: Estimate
    nll_change: Estimate
    """B's less A's: the logarithm of the ratio of their perplexities."""
    nll_correlation: float | None
    """Pearson's, of A's and B's over the tokens; None where one of them is constant."""
    kl: Estimate
    """KL divergence of B from A, sum of p_A ln(p_A / p_B) over the vocabulary, in nats."""
    kl_median: float
    kl_p90: float
    """At 90% of the tokens it is less; between two tokens, interpolated linearly."""
    kl_p99: float
    kl_p99_9: float
    kl_max: float
    same_top: Estimate
    """Share of the tokens for which both find the same token likeliest."""
    p_change: Estimate
    """Probability of the text's own token, B's less A's, from -1 to 1."""
    p_change_rms: Estimate
    """The root of its mean square; the standard error is the delta method's."""
    elapsed_s: float

    @property
    def perplexity_a(self) -> Estimate:
        """exp(nll_a); infinite where that is more than a float holds."""
        return self.nll_a.exp()

    @property
    def perplexity_b(self) -> Estimate:
        return self.nll_b.exp()

    @property
    def perplexity_ratio(self) -> Estimate:
        """B's divided by A's."""
        return self.nll_change.exp()


def compare(
    a: Model,
    b: Model,
    tokens: Sequence[int],
    *,
    context: int | None = None,
    stride: int | None = None,
    names: tuple[str, str] = NAMES,
    cancelled: Callable[[], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
    running: Callable[[float], None] | None = None,
) -> Comparison:
    """Returns how far the predictions of ``b`` are from those of ``a``, the reference.

    The text is cut into windows and every token predicted once, as ``edgeqwen.perplexity`` does it;
    ``context`` is by default 512, or a model's context if that is less.

    The ids that both models have must stand for the same tokens. If one has more, which among
    Qwen2.5 models are padding, they are left out: both distributions, and so the perplexities, are
    renormalised over the common ids.

    ``tokens``: ids, at least 2. ``names``: what messages call the models. ``progress(done, total)``
    counts tokens scored, and just before it ``running(value)`` gets their mean KL divergence. When
    ``cancelled()``, the result is that of the tokens scored so far, at least one.

    Raises OptionError for models of different vocabularies and for what ``perplexity`` refuses, and
    EdgeqwenError, which names the model, if a logit is infinite or NaN.
    """
    n_vocab = common_vocabulary(a, b, names=names)
    text = WindowedText.of(
        tokens,
        vocab_size=n_vocab,
        max_context=min(a.engine.max_context, b.engine.max_context),
        context=context,
        stride=stride,
    )
    found: list[Differences] = []
    n_scored, total, kl_sum = 0, text.n_scored, 0.0
    began = time.perf_counter()
    with closing(
        differences_in_parts([a, b], text, n_vocab=n_vocab, names=names, cancelled=cancelled)
    ) as parts:
        for (part,) in parts:
            found.append(part)
            n_scored += len(part.kl)
            kl_sum += float(part.kl.sum())
            if running is not None:
                running(kl_sum / n_scored)
            if progress is not None:
                progress(n_scored, total)
    return Comparison(
        n_tokens=len(text.ids),
        n_scored=n_scored,
        context=text.context,
        stride=text.stride,
        n_vocab=n_vocab,
        elapsed_s=time.perf_counter() - began,
        **_statistics(Differences.joined(found)),
    )


def differences_in_parts(
    models: Sequence[Model],
    text: WindowedText,
    *,
    n_vocab: int,
    names: Sequence[str],
    cancelled: Callable[[], bool] | None = None,
) -> Generator[list[Differences], None, None]:
    """Yields how far each model but the first is from the first, for a few tokens at a time.

    Only the first ``n_vocab`` ids count. ``names``: what messages call the models. Ends early when
    ``cancelled()``, but not before the first part; raises EdgeqwenError for logits that are no
    numbers.
    """
    stopped = False

    def stop() -> bool:
        # When one model has stopped, no other may go on: they would be at different tokens.
        nonlocal stopped
        stopped = stopped or (cancelled is not None and cancelled())
        return stopped

    for window in text.windows():
        with ExitStack() as stack:
            streams = [
                stack.enter_context(closing(scored_logits(model, text, window, cancelled=stop)))
                for model in models
            ]
            # Not strict: the first that stops ends the part that others have begun.
            for parts in zip(*streams, strict=False):
                tokens = parts[0][0]
                reference, *others = (
                    log_probabilities(logits[:, :n_vocab], whose=name)
                    for (_, logits), name in zip(parts, names, strict=True)
                )
                yield [Differences.of(reference, other, tokens) for other in others]
        if stop():
            return


def _statistics(found: Differences) -> dict[str, Any]:
    """Returns the fields of a Comparison that tokens' own values decide, by name."""
    p_change = np.exp(-found.nll_b) - np.exp(-found.nll_a)
    square = mean_and_error(p_change**2)
    rms = math.sqrt(square.mean)
    # Where nothing changed, both are 0.
    rms_se = square.se and square.se / (2 * rms)
    median, p90, p99, p99_9 = np.quantile(found.kl, (0.5, 0.9, 0.99, 0.999)).tolist()
    varies = found.nll_a.std() > 0 and found.nll_b.std() > 0
    return {
        "nll_a": mean_and_error(found.nll_a),
        "nll_b": mean_and_error(found.nll_b),
        "nll_change": mean_and_error(found.nll_b - found.nll_a),
        "nll_correlation": float(np.corrcoef(found.nll_a, found.nll_b)[0, 1]) if varies else None,
        "kl": mean_and_error(found.kl),
        "kl_median": median,
        "kl_p90": p90,
        "kl_p99": p99,
        "kl_p99_9": p99_9,
        "kl_max": float(found.kl.max()),
        "same_top": mean_and_error(found.same_top),
        "p_change": mean_and_error(p_change),
        "p_change_rms": Estimate(rms, rms_se),
    }
