"""Block formats: how each GGUF type is packed into tiles, and unpacked from a tile in registers."""

from edgeqwen.formats.base import Format, Tiling
from edgeqwen.formats.float_types import BF16, F16, F32
from edgeqwen.formats.iq4 import IQ4_NL, IQ4_XS
from edgeqwen.formats.iq_grid import GRID_FORMATS
from edgeqwen.formats.q2_k import Q2_K
from edgeqwen.formats.q4 import Q4_0, Q4_1
from edgeqwen.formats.q4_k import Q4_K, Q5_K
from edgeqwen.formats.q5 import Q5_0, Q5_1
from edgeqwen.formats.q6_k import Q3_K, Q6_K
from edgeqwen.formats.q8 import Q8_0
from edgeqwen.formats.ternary import TQ1_0, TQ2_0

FORMATS: dict[int, Format] = {
    f.ggml_type: f
    for f in (
        *(F32, F16, BF16),
        *(Q4_0, Q4_1, Q5_0, Q5_1, Q8_0),
        *(Q2_K, Q3_K, Q4_K, Q5_K, Q6_K),
        *(IQ4_NL, IQ4_XS, *GRID_FORMATS),
        *(TQ1_0, TQ2_0),
    )
}
"""The formats that kernels run, by GGML type number."""

__all__ = [
    "BF16",
    "F16",
    "F32",
    "FORMATS",
    "IQ4_NL",
    "IQ4_XS",
    "Q2_K",
    "Q3_K",
    "Q4_0",
    "Q4_1",
    "Q4_K",
    "Q5_0",
    "Q5_1",
    "Q5_K",
    "Q6_K",
    "Q8_0",
    "TQ1_0",
    "TQ2_0",
    "Format",
    "Tiling",
]
