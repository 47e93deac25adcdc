"""Conversion of checkpoints to GGUF files: ``quantize()`` and what it returns.

Importing this package doesn't import numba, which ``quantize`` does once it has work.
"""

from edgeqwen.quant.convert import quantize
from edgeqwen.quant.recipe import TYPES
from edgeqwen.quant.report import QuantizeReport, TensorReport

__all__ = ["TYPES", "QuantizeReport", "TensorReport", "quantize"]
