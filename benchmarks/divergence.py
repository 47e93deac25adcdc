"""How far models' predictions are from a reference's: KL divergence, likelihood, first choices."""

from collections.abc import Callable, Sequence

from edgeqwen import Model
from edgeqwen.comparison import Differences, differences_in_parts
from edgeqwen.likelihood import mean_and_error
from edgeqwen.perplexity import WindowedText


class Divergence(Differences):
    """A model, B, against a reference, A: a value for every predicted token of a text."""

    __slots__ = ()

    def figures(self) -> dict[str, float | None]:
        """Returns means by name and, with ``_se``, their standard errors.

        ``nll_change`` is the logarithm of the ratio of the two perplexities.
        """
        kl, kl_se = mean_and_error(self.kl)
        change, change_se = mean_and_error(self.nll_b - self.nll_a)
        perplexity, perplexity_se = mean_and_error(self.nll_b).exp()
        return {
            "n_positions": len(self.kl),
            "kl": kl,
            "kl_se": kl_se,
            "nll_change": change,
            "nll_change_se": change_se,
            "top1_agreement": float(self.same_top.mean()),
            "perplexity": perplexity,
            "perplexity_se": perplexity_se,
        }


def differences(a: Divergence, b: Divergence) -> dict[str, float | None]:
    """Returns the means of a - b and their standard errors, for ``kl`` and ``nll``.

    Both read the same text, so most of what varies from token to token cancels: these errors are
    far below those of two texts.
    """
    kl, kl_se = mean_and_error(a.kl - b.kl)
    nll, nll_se = mean_and_error(a.nll_b - b.nll_b)
    return {
        "kl_difference": kl,
        "kl_difference_se": kl_se,
        "nll_difference": nll,
        "nll_difference_se": nll_se,
    }


def divergences(
    models: Sequence[Model],
    reference: Model,
    tokens: Sequence[int],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Divergence]:
    """Returns the divergence of each model from the reference; all have the same vocabulary.

    ``tokens``: the text. It is read as ``edgeqwen.perplexity`` reads it, in windows of 512 that
    overlap by half; every token but the first is predicted once. ``progress(done, total)`` counts
    predicted tokens. Raises OptionError for fewer than 2 tokens, and EdgeqwenError if a logit is
    infinite or NaN.
    """
    text = WindowedText.of(
        tokens,
        vocab_size=reference.config.vocab_size,
        max_context=reference.engine.max_context,
        context=None,
        stride=None,
    )
    everyone = [reference, *models]
    names = [repr(model) for model in everyone]
    parts = []
    n_scored, total = 0, text.n_scored
    for part in differences_in_parts(
        everyone, text, n_vocab=reference.config.vocab_size, names=names
    ):
        parts.append(part)
        n_scored += len(part[0].kl)
        progress(n_scored, total)
    return [Divergence.joined(of_model) for of_model in zip(*parts, strict=True)]
