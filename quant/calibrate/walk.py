"""Calibrates a model: the text goes through it layer by layer, and each is rounded on the way.

Two streams run side by side: ``source``, the activations that the unquantized network has, and
``quantized``, those of the network as rounded so far. Memory holds one product's statistics and
some rows of a matrix; activations, float32 [n_tokens][...] of both streams, and the encoded
matrices lie in a workspace on the disk.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.calibrate.network import Attention, rms_norm, swiglu
from edgeqwen.quant.calibrate.rounding import round_rows
from edgeqwen.quant.calibrate.statistics import Part, Statistics
from edgeqwen.quant.calibrate.store import CalibratedCheckpoint
from edgeqwen.quant.calibrate.workspace import Workspace
from edgeqwen.quant.checkpoint import Checkpoint, SourceTensor
from edgeqwen.quant.decode import rows_as_floats, to_floats
from edgeqwen.quant.encode import encode
from edgeqwen.quant.encode.schemes import SCHEMES
from edgeqwen.quant.rows import unsound_rows

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
# Called for some rows of a matrix, with their first: the source's weights and the rounded ones.
Use = Callable[[int, Floats, Floats], None]

# Rows of a matrix that a thread rounds at a time.
_ROWS = 256
# Tokens whose activations are in memory at a time.
_TOKENS = 2048


def is_calibrated(tensor: SourceTensor) -> bool:
    """Says whether a tensor is a matrix of a layer; all others are converted plainly."""
    return tensor.name.startswith("blk.") and len(tensor.shape) > 1


class Calibration:
    """One calibration: ``tokens`` is int64 [windows][length]; ``types`` are by GGUF names.

    ``progress(done)`` is called with the bytes encoded so far.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        types: Mapping[str, GgmlType],
        tokens: npt.NDArray[np.int64],
        workspace: Workspace,
        n_threads: int,
        progress: Callable[[int], None],
    ) -> None:
        self._checkpoint, self._types, self._tokens = checkpoint, types, tokens
        self._workspace, self._n_threads = workspace, n_threads
        self._progress, self._done = progress, 0
        self._tensors = {tensor.name: tensor for tensor in checkpoint.tensors}
        self._encoded: dict[str, tuple[SourceTensor, Bytes]] = {}
        # All of them in one file: a system lends only so many.
        matrices = [tensor for tensor in checkpoint.tensors if is_calibrated(tensor)]
        n_bytes = sum(types[tensor.name].n_bytes(tensor.shape) for tensor in matrices)
        self._room: Bytes = workspace.array((n_bytes,), np.uint8)
        config = checkpoint.config
        self._attention = Attention(config, tokens.shape[1])
        # Both streams: the source's is the first.
        self._x = self._activations(config.hidden_size)
        self._normed = self._activations(config.hidden_size)
        q_size = config.n_heads * config.head_dim
        self._qkv = self._activations(q_size + 2 * config.n_kv_heads * config.head_dim)
        self._mixed = self._activations(q_size)
        self._hidden = self._activations(config.intermediate_size)

    def run(self) -> CalibratedCheckpoint:
        """Rounds all matrices of all layers; the others are left to plain conversion."""
        # Activations that overflow are found, and named, in their statistics.
        with np.errstate(over="ignore", invalid="ignore"):
            self._embed()
            for i in range(self._checkpoint.config.n_layers):
                self._attention_block(f"blk.{i}.")
                self._feed_forward(f"blk.{i}.")
        return CalibratedCheckpoint(self._checkpoint, self._encoded)

    def _activations(self, size: int) -> Floats:
        array: Floats = self._workspace.array((2, self._tokens.size, size), np.float32)
        return array

    def _embed(self) -> None:
        tensor = self._tensors["token_embd.weight"]
        flat = self._tokens.reshape(-1)
        for token in np.unique(flat):
            row = self._floats(tensor, int(token), int(token) + 1)
            type = self._types[tensor.name]
            places = flat == token
            self._x[0, places] = row
            self._x[1, places] = self._plainly_rounded(tensor, type, int(token), row)[1]

    def _attention_block(self, layer: str) -> None:
        self._norm(layer + "attn_norm.weight")
        statistics = self._statistics(self._normed)
        column = 0
        parts = list(statistics.parts())
        for name in ("attn_q", "attn_k", "attn_v"):
            tensor = self._tensors[f"{layer}{name}.weight"]
            bias = self._vector(f"{layer}{name}.bias")
            self._round(tensor, parts, self._product(self._normed, self._qkv, column, bias))
            column += tensor.n_rows
        del parts
        length = self._tokens.shape[1]
        for stream in range(2):
            for first in range(0, self._tokens.size, length):
                window = slice(first, first + length)
                self._mixed[stream, window] = self._attention(self._qkv[stream, window])
        self._add(layer + "attn_output.weight", self._mixed)

    def _feed_forward(self, layer: str) -> None:
        self._norm(layer + "ffn_norm.weight")
        parts = list(self._statistics(self._normed).parts())
        gate, up = (self._tensors[f"{layer}ffn_{name}.weight"] for name in ("gate", "up"))
        self._round(gate, parts, self._product(self._normed, self._hidden, 0, None))

        def multiply(row: int, source: Floats, rounded: Floats) -> None:
            rows = slice(row, row + len(source))
            for stream, weights in enumerate((source, rounded)):
                for tokens in self._batches():
                    gates = self._hidden[stream, tokens, rows]
                    ups = self._normed[stream, tokens] @ weights.T
                    self._hidden[stream, tokens, rows] = swiglu(gates, ups)

        self._round(up, parts, multiply)
        del parts
        self._add(layer + "ffn_down.weight", self._hidden)

    def _norm(self, name: str) -> None:
        weight, epsilon = self._vector(name), self._checkpoint.config.rms_norm_eps
        for stream in range(2):
            for tokens in self._batches():
                self._normed[stream, tokens] = rms_norm(self._x[stream, tokens], weight, epsilon)

    def _add(self, name: str, inputs: Floats) -> None:
        """x += inputs times the matrix, which is rounded first."""
        parts = list(self._statistics(inputs).parts())

        def add(row: int, source: Floats, rounded: Floats) -> None:
            rows = slice(row, row + len(source))
            for stream, weights in enumerate((source, rounded)):
                for tokens in self._batches():
                    self._x[stream, tokens, rows] += inputs[stream, tokens] @ weights.T

        self._round(self._tensors[name], parts, add)

    def _product(self, inputs: Floats, outputs: Floats, column: int, bias: Floats | None) -> Use:
        def multiply(row: int, source: Floats, rounded: Floats) -> None:
            columns = slice(column + row, column + row + len(source))
            for stream, weights in enumerate((source, rounded)):
                for tokens in self._batches():
                    product = inputs[stream, tokens] @ weights.T
                    if bias is not None:
                        product += bias[row : row + len(source)]
                    outputs[stream, tokens, columns] = product

        return multiply

    def _statistics(self, inputs: Floats) -> Statistics:
        statistics = Statistics(inputs.shape[2])
        for tokens in self._batches():
            statistics.add(inputs[0, tokens], inputs[1, tokens])
        return statistics

    def _batches(self) -> Iterator[slice]:
        for first in range(0, self._tokens.size, _TOKENS):
            yield slice(first, first + _TOKENS)

    def _round(self, tensor: SourceTensor, parts: Sequence[Part], use: Use) -> None:
        """Rounds a matrix on all threads, keeps what was encoded, and lets its rows be used."""
        type = self._types[tensor.name]
        target = dataclasses.replace(tensor, type=type)
        n_bytes = tensor.n_rows * target.row_bytes
        encoded, self._room = self._room[:n_bytes], self._room[n_bytes:]
        stored = encoded.reshape(tensor.n_rows, -1)

        def work(first: int) -> tuple[Floats, Bytes, Floats]:
            stop = min(first + _ROWS, tensor.n_rows)
            weights = self._floats(tensor, first, stop)
            if type is tensor.type and type.block_size > 1:
                # Nothing is nearer to blocks than themselves.
                same = self._checkpoint.rows(tensor, first, stop).reshape(stop - first, -1)
                return weights, same, weights
            if type not in SCHEMES:
                return weights, *self._plainly_rounded(tensor, type, first, weights)
            found = round_rows(SCHEMES[type], weights, parts)
            if found is None:
                raise unsound_rows(tensor, first, weights, type)
            return weights, found[0].reshape(len(weights), -1), found[1]

        with ThreadPoolExecutor(self._n_threads) as pool:
            starts = range(0, tensor.n_rows, _ROWS)
            for batch in range(0, len(starts), self._n_threads):
                some = starts[batch : batch + self._n_threads]
                for first, done in zip(some, pool.map(work, some), strict=True):
                    weights, blocks, rounded = done
                    stored[first : first + len(weights)] = blocks
                    use(first, weights, rounded)
                    self._done += blocks.nbytes
                    self._progress(self._done)
        self._checkpoint.release(tensor, 0, tensor.n_rows)
        self._encoded[tensor.name] = target, encoded

    def _plainly_rounded(
        self, tensor: SourceTensor, type: GgmlType, first: int, weights: Floats
    ) -> tuple[Bytes, Floats]:
        blocks = np.empty((len(weights), type.n_bytes(weights.shape[1:])), np.uint8)
        if not encode(type, weights, blocks):
            raise unsound_rows(tensor, first, weights, type)
        rounded = to_floats(type, blocks.reshape(-1), np.empty(weights.size, np.float32))
        return blocks, rounded.reshape(weights.shape)

    def _floats(self, tensor: SourceTensor, first: int, stop: int) -> Floats:
        """Rows [first, stop) of a tensor of the source as float32; raises if one isn't finite."""
        weights = rows_as_floats(self._checkpoint, tensor, first, stop)
        if not np.isfinite(weights).all():
            raise unsound_rows(tensor, first, weights, tensor.type)
        return weights

    def _vector(self, name: str) -> Floats:
        values: Floats = self._floats(self._tensors[name], 0, 1)[0]
        return values
