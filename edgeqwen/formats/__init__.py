"""Block formats: how each GGUF type is packed into tiles, and unpacked from a tile in registers."""

from edgeqwen.formats.base import Format, Tiling
from edgeqwen.formats.float_types import BF16, F16, F32
from edgeqwen.formats.q4_0 import Q4_0
from edgeqwen.formats.q8_0 import Q8_0

FORMATS: dict[int, Format] = {f.ggml_type: f for f in (F32, F16, BF16, Q4_0, Q8_0)}
"""The formats that kernels run, by GGML type number."""

__all__ = ["BF16", "F16", "F32", "FORMATS", "Q4_0", "Q8_0", "Format", "Tiling"]
