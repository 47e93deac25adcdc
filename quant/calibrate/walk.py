"""Calibrates a model: the text goes through it layer by layer, and each is rounded on the way.

Two streams run side by side: ``source``, the activations that the unquantized network has, and
``quantized``, those of the network as rounded so far. Memory holds the statistics of one part of a
matrix's columns, or of two, and some rows of it; activations, float32 [n_tokens][...] of both
streams, and the encoded matrices lie in a workspace on the disk.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.calibrate.network import Attention, rms_norm, swiglu
from edgeqwen.quant.calibrate.rounding import round_rows
from edgeqwen.quant.calibrate.statistics import Part, parts
from edgeqwen.quant.calibrate.store import CalibratedCheckpoint
from edgeqwen.quant.calibrate.workers import Workers
from edgeqwen.quant.calibrate.workspace import Workspace
from edgeqwen.quant.checkpoint import Checkpoint, SourceTensor
from edgeqwen.quant.decode import rows_as_floats, to_floats
from edgeqwen.quant.encode import encode
from edgeqwen.quant.encode.schemes import SCHEMES
from edgeqwen.quant.rows import unsound_rows

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
# Given some rows of a matrix that were rounded, and where they begin, what they are needed for: the
# work for one stream, with the weights that it has, and some tokens.
Use = Callable[[int, int, slice, Floats], None]

# Rows of a matrix that a thread rounds at a time.
_ROWS = 256
# Activations that a thread has in memory at a time, at most, and tokens.
_ACTIVATIONS = 1 << 22
_MOST_TOKENS = 2048


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
        workers: Workers,
        progress: Callable[[int], None],
    ) -> None:
        self._checkpoint, self._types, self._tokens = checkpoint, types, tokens
        self._workspace, self._workers = workspace, workers
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
        known = list(self._parts(self._normed))
        column = 0
        for name in ("attn_q", "attn_k", "attn_v"):
            tensor = self._tensors[f"{layer}{name}.weight"]
            bias = self._vector(f"{layer}{name}.bias")
            self._round(tensor, known, self._product(self._normed, self._qkv, column, bias))
            column += tensor.n_rows
        del known
        length = self._tokens.shape[1]
        windows = (slice(first, first + length) for first in range(0, self._tokens.size, length))
        self._for_tokens(windows, self._attend)
        self._add(layer + "attn_output.weight", self._mixed)

    def _attend(self, stream: int, window: slice) -> None:
        self._mixed[stream, window] = self._attention(self._qkv[stream, window])

    def _feed_forward(self, layer: str) -> None:
        self._norm(layer + "ffn_norm.weight")
        known = list(self._parts(self._normed))
        gate, up = (self._tensors[f"{layer}ffn_{name}.weight"] for name in ("gate", "up"))
        self._round(gate, known, self._product(self._normed, self._hidden, 0, None))

        def multiply(row: int, stream: int, tokens: slice, weights: Floats) -> None:
            rows = slice(row, row + len(weights))
            ups = self._normed[stream, tokens] @ weights.T
            self._hidden[stream, tokens, rows] = swiglu(self._hidden[stream, tokens, rows], ups)

        self._round(up, known, multiply)
        del known
        self._add(layer + "ffn_down.weight", self._hidden)

    def _norm(self, name: str) -> None:
        weight, epsilon = self._vector(name), self._checkpoint.config.rms_norm_eps

        def normalize(stream: int, tokens: slice) -> None:
            self._normed[stream, tokens] = rms_norm(self._x[stream, tokens], weight, epsilon)

        self._for_tokens(self._batches(len(weight)), normalize)

    def _add(self, name: str, inputs: Floats) -> None:
        """x += inputs times the matrix, which is rounded first, part by part."""
        tensor = self._tensors[name]
        if self._types[name] not in SCHEMES:
            self._round(tensor, (), self._sum(inputs, slice(None)))
            return
        for part in self._parts(inputs):
            self._round(tensor, (part,), self._sum(inputs, slice(part.first, part.stop)))
            del part  # before the next one is computed

    def _sum(self, inputs: Floats, columns: slice) -> Use:
        def add(row: int, stream: int, tokens: slice, weights: Floats) -> None:
            rows = slice(row, row + len(weights))
            self._x[stream, tokens, rows] += inputs[stream, tokens, columns] @ weights.T

        return add

    def _product(self, inputs: Floats, outputs: Floats, column: int, bias: Floats | None) -> Use:
        def multiply(row: int, stream: int, tokens: slice, weights: Floats) -> None:
            product = inputs[stream, tokens] @ weights.T
            if bias is not None:
                product += bias[row : row + len(weights)]
            columns = slice(column + row, column + row + len(weights))
            outputs[stream, tokens, columns] = product

        return multiply

    def _parts(self, inputs: Floats) -> Iterator[Part]:
        """Yields what the inputs of both streams, float32 [2][n_tokens][columns], tell."""

        def batches(columns: slice) -> Iterator[tuple[Floats, Floats]]:
            for tokens in self._batches(columns.stop - columns.start):
                yield inputs[0, tokens, columns], inputs[1, tokens, columns]
                self._workspace.release()

        return parts(inputs.shape[2], batches, self._workers)

    def _batches(self, columns: int) -> Iterator[slice]:
        """Yields tokens, of whose activations there are so many."""
        step = max(1, min(_MOST_TOKENS, _ACTIVATIONS // columns))
        for first in range(0, self._tokens.size, step):
            yield slice(first, min(first + step, self._tokens.size))

    def _for_tokens(self, some: Iterable[slice], work: Callable[[int, slice], None]) -> None:
        """Does the work for both streams and tokens after tokens, on all threads."""
        pieces = [functools.partial(work, stream, tokens) for tokens in some for stream in (0, 1)]
        n = self._workers.n_threads
        for first in range(0, len(pieces), n):
            self._workers.do(pieces[first : first + n])
            self._workspace.release()

    def _round(self, tensor: SourceTensor, known: Sequence[Part], use: Use) -> None:
        """Rounds the columns of parts of a matrix, keeps them encoded, and lets them be used.

        All of them where nothing is ``known`` of their inputs: then, each weight by itself.
        """
        type = self._types[tensor.name]
        first_column, stop_column = 0, tensor.shape[-1]
        if known:
            first_column, stop_column = known[0].first, known[-1].stop
        stored = self._stored(tensor)[
            :, type.n_bytes((first_column,)) : type.n_bytes((stop_column,))
        ]

        def work(first: int) -> tuple[Floats, Bytes, Floats]:
            stop = min(first + _ROWS, tensor.n_rows)
            weights = self._floats(tensor, first, stop)[:, first_column:stop_column]
            if type is tensor.type and type.block_size > 1:
                # Nothing is nearer to blocks than themselves.
                same = self._checkpoint.rows(tensor, first, stop).reshape(stop - first, -1)
                first_byte = type.n_bytes((first_column,))
                return weights, same[:, first_byte : first_byte + stored.shape[1]], weights
            if type not in SCHEMES:
                return weights, *self._plainly_rounded(tensor, type, first, weights)
            found = round_rows(SCHEMES[type], weights, known)
            if found is None:
                raise unsound_rows(tensor, first, weights, type)
            return weights, found[0].reshape(len(weights), -1), found[1]

        n, starts = self._workers.n_threads, range(0, tensor.n_rows, _ROWS)
        for batch in range(0, len(starts), n):
            some = starts[batch : batch + n]
            done = self._workers.do(functools.partial(work, first) for first in some)
            self._checkpoint.release(tensor, some[0], min(some[-1] + _ROWS, tensor.n_rows))
            for first, (weights, blocks, rounded) in zip(some, done, strict=True):
                stored[first : first + len(weights)] = blocks
                work_of = functools.partial(_use_of_stream, use, first, (weights, rounded))
                self._for_tokens(self._batches(max(weights.shape)), work_of)
                self._done += blocks.nbytes
                self._progress(self._done)

    def _stored(self, tensor: SourceTensor) -> Bytes:
        """Returns the room for a matrix's blocks, uint8 [rows][bytes of a row]."""
        if tensor.name not in self._encoded:
            target = dataclasses.replace(tensor, type=self._types[tensor.name])
            n_bytes = tensor.n_rows * target.row_bytes
            self._encoded[tensor.name] = target, self._room[:n_bytes]
            self._room = self._room[n_bytes:]
        return self._encoded[tensor.name][1].reshape(tensor.n_rows, -1)

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


def _use_of_stream(
    use: Use, row: int, weights: tuple[Floats, Floats], stream: int, tokens: slice
) -> None:
    use(row, stream, tokens, weights[stream])
