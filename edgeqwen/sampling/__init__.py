"""Choosing the next token from logits: ``SamplingOptions`` says how, a ``Sampler`` does it."""

from typing import TYPE_CHECKING, Any

from edgeqwen.sampling.options import SamplingOptions

if TYPE_CHECKING:
    from edgeqwen.sampling.chain import Sampler

__all__ = ["Sampler", "SamplingOptions"]


def __getattr__(name: str) -> Any:
    # Late: the sampler needs Numba, which takes long to import, and the options are wanted early.
    if name == "Sampler":
        from edgeqwen.sampling.chain import Sampler

        return Sampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
