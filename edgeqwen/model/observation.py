"""What a model's matrices are multiplied by: how large it is, summed up over the tokens of a text.

Matrices that are multiplied by the same activations (q, k and v; gate and up) share one input.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeqwen.kernels.observe import CHUNK_COLUMNS, OBSERVE, observe
from edgeqwen.model.buffers import Buffers
from edgeqwen.model.qwen2 import Recorder
from edgeqwen.model.recording import Recording
from edgeqwen.model.weights import Matrix, Weights


@dataclass(frozen=True, slots=True)
class ObservedInput:
    """The input of some matrices, by their tensors' names; ``first`` is that of its sums."""

    names: tuple[str, ...]
    first: int
    n_columns: int


def observed_inputs(weights: Weights) -> tuple[ObservedInput, ...]:
    """Returns the inputs of all matrix products, in the order in which a step comes to them."""
    products: list[Sequence[Matrix]] = []
    for layer in weights.layers:
        products += [layer.qkv, (layer.o_proj,), layer.gate_up, (layer.down_proj,)]
    products.append((weights.head,))
    inputs: list[ObservedInput] = []
    first = 0
    for matrices in products:
        names = tuple(name for matrix in matrices for name in matrix.names)
        inputs.append(ObservedInput(names, first, matrices[0].n_columns))
        first += matrices[0].n_columns
    return tuple(inputs)


class Observation:
    """Sums of squares of the inputs of a model's matrices. Made by ``Engine.new_observation``.

    ``sums``: float64, one for each column of each input; ``n_tokens``: how many were summed up.
    """

    def __init__(self, inputs: tuple[ObservedInput, ...]) -> None:
        self.inputs = inputs
        self.sums = np.zeros(sum(input_.n_columns for input_ in inputs))
        self.n_tokens = 0

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], NDArray[np.float64]]]:
        """Yields the names of the tensors that share an input with the input's sums, a view."""
        for input_ in self.inputs:
            yield input_.names, self.sums[input_.first : input_.first + input_.n_columns]


class ObservedRecording(Recording):
    """A tape for many tokens that observes every input, and that leaves the logits out.

    ``observed`` is a record that says, in each step, where the sums are.
    """

    def __init__(
        self,
        recorder: Recorder,
        buffers: Buffers,
        inputs: Sequence[ObservedInput],
        observed: NDArray[Any],
    ) -> None:
        super().__init__(recorder, buffers, one_token=False)
        self._inputs = {input_.names[0]: input_ for input_ in inputs}
        self._observed = observed

    def norm_and_multiply(
        self,
        weight: NDArray[Any],
        matrices: Sequence[Matrix],
        output: str,
        bias: NDArray[Any] | None = None,
    ) -> None:
        super().norm_and_multiply(weight, matrices, output, bias)
        self._observe(matrices[0], "normed", self.strides["x"])

    def attention(self, i: int, o_proj: Matrix) -> None:
        super().attention(i, o_proj)
        self._observe(o_proj, "attention", 4 * o_proj.n_columns)

    def feed_forward(
        self, weight: NDArray[Any], gate_up: Sequence[Matrix], down_proj: Matrix
    ) -> None:
        super().feed_forward(weight, gate_up, down_proj)
        if len(gate_up) == 1:  # else they were multiplied one after the other, and observed
            self._observe(gate_up[0], "normed", self.strides["x"])
        # The product has taken the gate's place.
        self._observe(down_proj, "gate_up", self.strides["gate_up"])

    def logits(self, weight: NDArray[Any], head: Matrix, last_only: bool) -> None:
        self.norm(weight, head, self.tiling(head.format).panel)
        self._observe(head, "normed", self.strides["x"])

    def _observe(self, matrix: Matrix, buffer: str, stride: int) -> None:
        """sums += the squares of what lies in a buffer: the input that begins with a matrix."""
        input_ = self._inputs[matrix.names[0]]
        arguments = {
            "state": self.state,
            "observed": self._observed.ctypes.data,
            "first": input_.first,
            "x": self.buffers[buffer],
            "stride": stride,
            "n_columns": input_.n_columns,
        }
        chunks = -(-input_.n_columns // CHUNK_COLUMNS)
        self.tape.add(observe, self.r.isa, OBSERVE, arguments, chunks=chunks)
