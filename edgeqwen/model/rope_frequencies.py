"""The frequencies of the rotary position embedding, with linear or YaRN scaling.

Source of YaRN: arXiv 2309.00071, section 3.2; the ramp runs over dimensions as in the models'
published code: between those that turn beta_fast and beta_slow times in the original context.
"""

import math

import numpy as np
from numpy.typing import NDArray

from edgeqwen.config import ModelConfig


def rope_frequencies(config: ModelConfig) -> tuple[NDArray[np.float32], float]:
    """Returns radians per position, float32 [head_dim / 2], and the factor of cosine and sine."""
    size, theta, scaling = config.head_dim, config.rope_theta, config.rope_scaling
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    frequencies = (1.0 / np.float32(theta) ** exponents).astype(np.float32)
    if scaling is None:
        return frequencies, 1.0
    scaled = frequencies / np.float32(scaling.factor)
    if scaling.type == "linear":
        return scaled.astype(np.float32), scaling.attention_factor

    def dimension_of(rotations: float) -> float:
        wavelength = scaling.original_max_context / (rotations * 2 * math.pi)
        return size * math.log(wavelength) / (2 * max(math.log(theta), 1e-9))

    low = max(math.floor(dimension_of(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension_of(scaling.beta_slow)), size - 1)
    ramp = (np.arange(size // 2, dtype=np.float32) - low) / np.float32((high - low) or 0.001)
    interpolated = np.clip(ramp, 0, 1).astype(np.float32)
    mixed = scaled * interpolated + frequencies * (1 - interpolated)
    return mixed.astype(np.float32), scaling.attention_factor
