"""Conversion of checkpoints to GGUF files: ``quantize()``, ``plan()`` and what they return.

Importing this package doesn't import numba, which ``quantize`` does once it has work.
"""

from edgeqwen.quant.convert import quantize
from edgeqwen.quant.errors import HISTOGRAM_EDGES, TensorErrors, WorstBlock
from edgeqwen.quant.packed_file import pack
from edgeqwen.quant.plan import plan
from edgeqwen.quant.plan_groups import TensorGroup, group_layers
from edgeqwen.quant.recipe import TENSOR_TYPES, TYPES
from edgeqwen.quant.report import QuantizePlan, QuantizeReport, TensorReport, TypeTotal
from edgeqwen.quant.report_files import check_report, write_report

__all__ = [
    "HISTOGRAM_EDGES",
    "TENSOR_TYPES",
    "TYPES",
    "QuantizePlan",
    "QuantizeReport",
    "TensorErrors",
    "TensorGroup",
    "TensorReport",
    "TypeTotal",
    "WorstBlock",
    "check_report",
    "group_layers",
    "pack",
    "plan",
    "quantize",
    "write_report",
]
