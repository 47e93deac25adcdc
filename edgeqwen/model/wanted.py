"""What a sampler wants of the next token's logits, where it doesn't want all of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Wanted:
    """The ``k`` largest logits, after penalties that only lower them.

    ``penalised``: uint8 [vocab_size], 1 for tokens that are penalised. Of those, positive logits
    are divided by ``repetition``, at least 1, and others multiplied; then ``subtracted`` at most,
    at least 0, is subtracted.
    """

    k: int
    penalised: NDArray[np.uint8]
    repetition: float = 1.0
    subtracted: float = 0.0
