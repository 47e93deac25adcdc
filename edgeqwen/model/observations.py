"""Observations: what has entered the matrices of a network, summed up over the tokens of a text."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class Observations:
    """The sum of x**2 over all tokens, for every column of every matrix's input x.

    ``sums`` holds float64 [columns] by the names of tensors; matrices that are multiplied by one
    input share an array. ``n_tokens`` counts the tokens. A tape adds to the arrays by their
    addresses: they are neither replaced nor moved.
    """

    def __init__(self) -> None:
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.n_tokens = 0

    def point(self, names: Iterable[str], n_columns: int) -> NDArray[np.float64]:
        """Returns new sums, all zero, of the input that these tensors share."""
        sums = np.zeros(n_columns)
        self.sums |= dict.fromkeys(names, sums)
        return sums
