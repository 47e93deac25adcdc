"""The weights in memory: every matrix packed into tiles, norms and biases as float32.

A standard GGUF is packed tensor by tensor on all threads, and the file's pages are released as it
goes, so that memory stays at about the file's size.
"""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeqwen.cache.region import Region
from edgeqwen.config import ModelConfig
from edgeqwen.errors import UnsupportedError
from edgeqwen.formats import FORMATS, Format
from edgeqwen.formats.base import BLOCK_COLUMNS, TILE_ROWS
from edgeqwen.formats.packing import compile_pack, pack
from edgeqwen.formats.screened import LEAST_ROWS, SCREENED
from edgeqwen.gguf_file import GgmlType, GgufFile, TensorInfo
from edgeqwen.model.unloaded import UnloadedModel

# Source bytes that a thread packs at a time.
PACK_BYTES = 1 << 20
ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix [n_rows, n_columns] in tiles; some tensors of one format, one on the other.

    ``row`` is where its rows begin in the output of the operation it belongs to. What the format
    keeps apart of the tiles lies before ``address``.
    """

    names: tuple[str, ...]
    format: Format
    n_rows: int
    n_columns: int
    row: int
    address: int

    @property
    def n_blocks(self) -> int:
        return self.n_columns // BLOCK_COLUMNS

    @property
    def row_tiles(self) -> int:
        """How many tiles stand side by side in a row of them."""
        return self.n_columns // self.format.tile_columns

    @property
    def n_tiles(self) -> int:
        return -(-self.n_rows // TILE_ROWS)

    @property
    def n_bytes(self) -> int:
        """Bytes of the tiles."""
        return self.n_tiles * self.row_tiles * self.format.tile_bytes

    @property
    def apart_bytes(self) -> int:
        """Bytes of what lies apart."""
        return self.n_tiles * self.row_tiles * self.format.apart_tile_bytes


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One transformer layer. ``qkv`` and ``gate_up`` hold a matrix for each run of one format."""

    attn_norm: NDArray[np.float32]
    qkv: tuple[Matrix, ...]
    qkv_bias: NDArray[np.float32]
    o_proj: Matrix
    ffn_norm: NDArray[np.float32]
    gate_up: tuple[Matrix, ...]
    down_proj: Matrix


class Weights:
    """All weights of a model. ``pack`` fills them from the file; ``close`` frees them."""

    def __init__(
        self, file: GgufFile | UnloadedModel, config: ModelConfig, *, full_head: bool = False
    ) -> None:
        """Plans the memory. Raises UnsupportedError for types and shapes that kernels don't run.

        Unless ``full_head``, the head is laid out for a screen, where that pays.
        """
        self._file = file
        screened = not full_head and config.vocab_size >= LEAST_ROWS
        _check_shapes(file, config)
        self._size = 0
        self._plans: list[Matrix] = []
        # Addresses are offsets until the region exists.
        tied = config.tie_word_embeddings
        embedding = self._plan(["token_embd.weight"], screened=screened and tied)[0]
        head = embedding if tied else self._plan(["output.weight"], screened=screened)[0]
        layers = [
            [
                self._plan([f"blk.{i}.{n}.weight" for n in names])
                for names in (
                    ("attn_q", "attn_k", "attn_v"),
                    ("attn_output",),
                    ("ffn_gate", "ffn_up"),
                    ("ffn_down",),
                )
            ]
            for i in range(config.n_layers)
        ]
        self._region = Region(self._size, purpose="the model", huge=True)
        self.embedding, self.head = self._place(embedding), self._place(head)
        self.output_norm = self._vector("output_norm.weight")
        self.layers = [
            self._layer(i, *(tuple(map(self._place, m)) for m in matrices))
            for i, matrices in enumerate(layers)
        ]

    @property
    def formats(self) -> set[Format]:
        return {matrix.format for matrix in self._plans}

    @property
    def n_bytes(self) -> int:
        return self._size

    def kernels(self) -> dict[tuple[str, str], Callable[[], object]]:
        """Returns what packing compiles: by name, a function that does it."""
        return {("pack", f.name): functools.partial(compile_pack, f) for f in self.formats}

    def pack(self, n_threads: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Packs every matrix; ``progress(done, total)`` gets bytes of the file.

        Raises UnsupportedError, before it takes any, for more memory than the machine has.
        """
        if self._size > physical_memory():
            raise UnsupportedError(
                f"{self._file.path}: the weights need {self._size / 1e9:.1f} GB of memory, and "
                f"this machine has {physical_memory() / 1e9:.1f} GB; convert the model to a "
                "smaller type (edgeqwen quantize -t q4_0), or take a smaller model"
            )
        names = [name for matrix in self._plans for name in matrix.names]
        total = sum(self._file.tensor(name).n_bytes for name in names)
        done = 0
        with ThreadPoolExecutor(n_threads) as pool:
            for matrix in self._plans:
                for name, jobs in self._jobs(matrix):
                    list(pool.map(lambda job: job(), jobs))
                    self._file.release(name)
                    done += self._file.tensor(name).n_bytes
                    if progress is not None:
                        progress(done, total)

    def close(self) -> None:
        self._region.close()

    def _plan(self, names: Sequence[str], *, screened: bool = False) -> list[Matrix]:
        """Plans the tensors of one operation: a matrix for each run of tensors of one type.

        ``screened``: in the format of a screened head, if the type has one.
        """
        matrices: list[Matrix] = []
        row = 0
        for name in names:
            tensor = self._file.tensor(name)
            format_ = _format(self._file, tensor)
            if screened:
                format_ = SCREENED.get(tensor.type, format_)
            n_rows, n_columns = tensor.shape
            last = matrices[-1] if matrices else None
            # Only whole tiles can stand in the middle of a matrix.
            if last and last.format is format_ and last.n_rows % TILE_ROWS == 0:
                matrices[-1] = Matrix(
                    (*last.names, name), format_, last.n_rows + n_rows, n_columns, last.row, 0
                )
            else:
                matrices.append(Matrix((name,), format_, n_rows, n_columns, row, 0))
            row += n_rows
        for i, matrix in enumerate(matrices):
            address = self._size + matrix.apart_bytes
            placed = Matrix(
                matrix.names, matrix.format, matrix.n_rows, matrix.n_columns, matrix.row, address
            )
            matrices[i] = placed
            self._size = address + -(-placed.n_bytes // ALIGNMENT) * ALIGNMENT
            self._plans.append(placed)
        return matrices

    def _place(self, m: Matrix) -> Matrix:
        address = self._region.address + m.address
        return Matrix(m.names, m.format, m.n_rows, m.n_columns, m.row, address)

    def _layer(
        self,
        i: int,
        qkv: tuple[Matrix, ...],
        o_proj: tuple[Matrix, ...],
        gate_up: tuple[Matrix, ...],
        down_proj: tuple[Matrix, ...],
    ) -> LayerWeights:
        biases = [self._vector(f"blk.{i}.attn_{n}.bias") for n in "qkv"]
        return LayerWeights(
            attn_norm=self._vector(f"blk.{i}.attn_norm.weight"),
            qkv=qkv,
            qkv_bias=np.concatenate(biases),
            o_proj=o_proj[0],
            ffn_norm=self._vector(f"blk.{i}.ffn_norm.weight"),
            gate_up=gate_up,
            down_proj=down_proj[0],
        )

    def _vector(self, name: str) -> NDArray[np.float32]:
        """Reads a norm or a bias as float32."""
        tensor, data = self._file.tensor(name), self._file.data(name)
        if tensor.type == GgmlType.F32:
            return data.view(np.float32).copy()
        if tensor.type == GgmlType.F16:
            return data.view(np.float16).astype(np.float32)
        if tensor.type == GgmlType.BF16:
            return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        raise UnsupportedError(
            f"{self._file.path}: {name} is {tensor.type.name}, but a norm or bias must be F32, F16 "
            "or BF16; convert the model again (edgeqwen quantize keeps them in F32)"
        )

    def _jobs(self, matrix: Matrix) -> Iterator[tuple[str, list[Callable[[], None]]]]:
        """Yields each tensor's name with the jobs that pack it."""
        format_, row_tiles = matrix.format, matrix.row_tiles
        tiles = self._region.address + matrix.address
        for name in matrix.names:
            n_rows, data = self._file.tensor(name).shape[0], self._file.data(name)
            n_tiles = -(-n_rows // TILE_ROWS)
            step = max(1, PACK_BYTES // (TILE_ROWS * row_tiles * format_.tile_row_bytes))
            job = functools.partial(pack, format_, data, n_rows, row_tiles, tiles)
            ranges = ((first, min(first + step, n_tiles)) for first in range(0, n_tiles, step))
            yield name, [functools.partial(job, *range_) for range_ in ranges]
            tiles += n_tiles * row_tiles * format_.tile_bytes


def physical_memory() -> int:
    """Returns the machine's memory in bytes, or more than any machine has where it isn't told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 62


def _format(file: GgufFile | UnloadedModel, tensor: TensorInfo) -> Format:
    found = FORMATS.get(tensor.type)
    if found is None:
        known = ", ".join(f.name for f in FORMATS.values())
        raise UnsupportedError(
            f"{file.path}: {tensor.name} is {tensor.type.name}, which this version can't run; it "
            f"runs {known}: get the model in one of these, or convert the original checkpoint with "
            "edgeqwen quantize"
        )
    return found


def _check_shapes(file: GgufFile | UnloadedModel, config: ModelConfig) -> None:
    """Refuses sizes that the tiles can't hold; no published model has such."""
    for name, size in (
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("head_dim", config.head_dim),
    ):
        if size % BLOCK_COLUMNS:
            raise UnsupportedError(
                f"{file.path}: {name} is {size}, which is not a multiple of {BLOCK_COLUMNS}; "
                "this version can't run such a model"
            )
