"""Zeros at the end of the feed-forward size, so that types in blocks of 256 fit its rows.

A hidden unit whose weights are all zero adds nothing: silu(0) * 0, times a column of zeros. The
72B needs this: its 29568 are 115.5 blocks, and without it ffn_down, more than a quarter of it,
gets another type than the recipe's.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from edgeqwen.quant.checkpoint import Checkpoint, SourceTensor

_MULTIPLE = 256
_SIZE_KEY = "qwen2.feed_forward_length"


def padded(checkpoint: Checkpoint) -> Checkpoint:
    """Returns a checkpoint whose feed-forward size is a multiple of 256.

    Where it is one already, this is the same checkpoint with a note that says so.
    """
    size = checkpoint.config.intermediate_size
    if size % _MULTIPLE:
        return PaddedCheckpoint(checkpoint)
    checkpoint.notes.append(
        f"the feed-forward size, {size}, is a multiple of {_MULTIPLE} already: nothing was padded"
    )
    return checkpoint


class PaddedCheckpoint:
    """A checkpoint whose feed-forward size is filled up with zeros to a multiple of 256.

    ffn_gate and ffn_up get rows of zeros, ffn_down columns; every other tensor stays as it is.
    The zeros are of the source's own type, in all of which a block of zero bytes means zeros.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        before = checkpoint.config.intermediate_size
        after = -(-before // _MULTIPLE) * _MULTIPLE
        self._checkpoint = checkpoint
        self.config = dataclasses.replace(checkpoint.config, intermediate_size=after)
        self.metadata = {**checkpoint.metadata, _SIZE_KEY: after}
        shapes = self.config.expected_tensors()
        self.tensors = [
            dataclasses.replace(tensor, shape=shapes[tensor.name]) for tensor in checkpoint.tensors
        ]
        self._sources = {tensor.name: tensor for tensor in checkpoint.tensors}
        self.files = checkpoint.files
        self.notes = [
            *checkpoint.notes,
            f"the feed-forward size is filled up with zeros, from {before} to {after}",
        ]

    def rows(self, tensor: SourceTensor, first: int, stop: int) -> npt.NDArray[np.uint8]:
        source = self._sources[tensor.name]
        if source.shape == tensor.shape:
            return self._checkpoint.rows(source, first, stop)
        found = self._checkpoint.rows(source, *_within(source, first, stop))
        found = found.reshape(-1, source.row_bytes)
        # Blocks divide both lengths: the source's by its format, the new one as 256 is a multiple.
        out = np.zeros((stop - first, tensor.row_bytes), np.uint8)
        out[: found.shape[0], : found.shape[1]] = found
        return out.reshape(-1)

    def release(self, tensor: SourceTensor, first: int, stop: int) -> None:
        source = self._sources[tensor.name]
        self._checkpoint.release(source, *_within(source, first, stop))

    def close(self) -> None:
        self._checkpoint.close()


def _within(source: SourceTensor, first: int, stop: int) -> tuple[int, int]:
    """Returns which of these rows the source has."""
    return min(first, source.n_rows), min(stop, source.n_rows)
