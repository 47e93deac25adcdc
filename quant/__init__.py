"""Conversion of checkpoints to GGUF files: ``quantize()``, ``plan()`` and what they return.

Importing this package doesn't import numba, which ``quantize`` does once it has work.
"""

from edgeqwen.quant.convert import quantize
from edgeqwen.quant.plan import plan
from edgeqwen.quant.plan_groups import TensorGroup, group_layers
from edgeqwen.quant.recipe import TENSOR_TYPES, TYPES
from edgeqwen.quant.report import QuantizePlan, QuantizeReport, TensorReport, TypeTotal

__all__ = [
    "TENSOR_TYPES",
    "TYPES",
    "QuantizePlan",
    "QuantizeReport",
    "TensorGroup",
    "TensorReport",
    "TypeTotal",
    "group_layers",
    "plan",
    "quantize",
]
