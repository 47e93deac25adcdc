"""The weights in memory: every matrix packed into tiles, norms and biases as float32.

A standard GGUF is packed tensor by tensor on all threads, and the file's pages are released as it
goes, so that memory stays at about the file's size.
"""

import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeqwen.cache import huge_pages
from edgeqwen.cache.huge_pages import HugePages
from edgeqwen.cache.region import Region
from edgeqwen.config import ModelConfig
from edgeqwen.errors import FileFormatError, UnsupportedError
from edgeqwen.executor import Team
from edgeqwen.formats import FORMATS, Format
from edgeqwen.formats.base import BLOCK_COLUMNS, TILE_ROWS
from edgeqwen.formats.packing import pack_tiles
from edgeqwen.formats.screened import LEAST_ROWS, SCREENED
from edgeqwen.gguf_file import GgmlType, GgufFile, TensorInfo
from edgeqwen.model.packing import Packing, Source
from edgeqwen.model.unloaded import UnloadedModel
from edgeqwen.simd.compile import INT

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

    def continues_with(self, other: "Matrix") -> bool:
        """Whether another matrix is the next rows of this one, in memory too."""
        return (
            # Only whole tiles can stand in the middle of a matrix.
            (other.format is self.format and self.n_rows % TILE_ROWS == 0)
            and other.address == self.address + self.n_bytes
            and self.apart_bytes == 0
        )

    def joined(self, other: "Matrix") -> "Matrix":
        """Returns both as one matrix."""
        names, n_rows = (*self.names, *other.names), self.n_rows + other.n_rows
        return dataclasses.replace(self, names=names, n_rows=n_rows)


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
    """All weights of a model; ``close`` frees them.

    Those of a packed file are used where they lie in it. Others get memory, which
    ``start_packing`` fills.
    """

    def __init__(
        self, file: GgufFile | UnloadedModel, config: ModelConfig, *, full_head: bool = False
    ) -> None:
        """Plans the memory. Raises UnsupportedError for types and shapes that kernels don't run.

        Unless ``full_head``, the head is laid out for a screen, where that pays.
        """
        self._file = file
        _check_shapes(file, config)
        self._packing: Packing | None = None
        self._is_begun = self._is_packed = False
        self._stop_reading: Callable[[], None] = _nothing
        self._waiting = threading.Lock()
        # Of a packed file, views that keep it mapped.
        self._views: list[NDArray[np.uint8]] = []
        # Addresses are offsets until the region exists; in a packed file they are addresses.
        self._size = 0
        self._config, self._full_head = config, full_head
        groups = [self._plan(names) for names in matrix_groups(config)]
        later = huge_pages.can_come_later()
        self._region = Region(self._size, purpose="the model", huge=not later)
        self._huge_pages: HugePages | None = None
        if later:
            self._huge_pages = HugePages(self._region.view(0, self._size))
        placed = [tuple(map(self._place, group)) for group in groups]
        self._matrices = [matrix for group in placed for matrix in group]
        self.embedding = placed.pop(0)[0]
        self.head = self.embedding if config.tie_word_embeddings else placed.pop(0)[0]
        self.output_norm = self._vector("output_norm.weight")
        self.layers = [self._layer(i, *placed[4 * i : 4 * i + 4]) for i in range(config.n_layers)]

    @property
    def formats(self) -> set[Format]:
        return {matrix.format for matrix in self._matrices}

    @property
    def n_bytes(self) -> int:
        return self._size

    @property
    def tile_bytes(self) -> int:
        """Bytes of all matrices as kernels read them, also where they lie in a packed file."""
        return sum(matrix.apart_bytes + matrix.n_bytes for matrix in self._matrices)

    def kernels(self) -> dict[tuple[str, str], Callable[[], object]]:
        """Returns what packing compiles: by name, a function that does it."""
        return {
            ("pack", f.name): functools.partial(pack_tiles.address, f, INT, INT, INT)
            for f in self.formats
        }

    @property
    def is_in_file(self) -> bool:
        """Whether the file is packed, and used in place."""
        return self._file.is_packed

    @property
    def is_begun(self) -> bool:
        """Whether packing was begun, or ended."""
        return self._is_begun

    def start_packing(self, team: Team) -> None:
        """Begins to pack every matrix on a team, which is busy until ``wait`` has returned.

        Of a packed file, only reading begins. Raises UnsupportedError, before it takes any, for
        more memory than the machine has.
        """
        self._is_begun = True
        if self._file.is_packed:
            if self._file.size < physical_memory() * 3 // 4:
                self._stop_reading = self._file.read_ahead()
            return
        if self._size > physical_memory():
            raise UnsupportedError(
                f"{self._file.path}: the weights need {self._size / 1e9:.1f} GB of memory, and "
                f"this machine has {physical_memory() / 1e9:.1f} GB; convert the model to a "
                "smaller type (edgeqwen quantize -t q4_0), or take a smaller model"
            )
        self._packing = Packing([self._sources(matrix) for matrix in self._matrices], team)
        self._packing.keep_alive(self._region)
        self._packing.start()

    def wait(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Returns when all is packed; ``progress(done, total)`` gets bytes of the file.

        Raises ClosedError if the weights were closed meanwhile.
        """
        if not self._is_begun:
            raise AssertionError("the weights are waited for, but nobody began to pack them")
        with self._waiting:
            if self._packing is not None and not self._is_packed:
                self._packing.wait(progress)
                self._is_packed = True
                self._end_packing()

    def _end_packing(self) -> None:
        if self._huge_pages is not None:
            self._huge_pages.start()
        for matrix in self._matrices:
            for name in matrix.names:
                self._file.release(name)

    def stop_packing(self) -> None:
        """Ends packing, if it is under way: what isn't packed yet never will be."""
        if self._packing is not None and not self._is_packed:
            self._packing.stop()

    def close(self) -> None:
        """Frees them, after ``stop_packing``, and after the team was closed."""
        self._packing = None
        self._stop_reading()
        self._views.clear()
        if self._huge_pages is not None:
            self._huge_pages.stop()
            self._huge_pages = None
        self._region.close()

    def _plan(self, names: Sequence[str]) -> list[Matrix]:
        """Plans the tensors of one operation: a matrix for each run of tensors of one type."""
        found: list[Matrix] = []
        row = 0
        self._size = -(-self._size // ALIGNMENT) * ALIGNMENT
        for name in names:
            tensor = self._file.tensor(name)
            format_ = _format(self._file, tensor, self._config, self._full_head)
            n_rows, n_columns = tensor.shape
            matrix = Matrix((name,), format_, n_rows, n_columns, row, 0)
            address = self._size if tensor.layout is None else self._bytes_in_file(tensor, matrix)
            matrix = dataclasses.replace(matrix, address=address + matrix.apart_bytes)
            if found and found[-1].continues_with(matrix):
                found[-1] = found[-1].joined(matrix)
            else:
                found.append(matrix)
            if tensor.layout is None:
                self._size = found[-1].address + found[-1].n_bytes
            row += n_rows
        return found

    def _bytes_in_file(self, tensor: TensorInfo, matrix: Matrix) -> int:
        """Returns the address of a packed file's matrix, whose size is checked."""
        expected = matrix.apart_bytes + matrix.n_bytes
        if matrix.n_columns % matrix.format.tile_columns:
            raise FileFormatError(
                f"{self._file.path}: {tensor.name} has {matrix.n_columns} columns, expected whole "
                f"tiles of {matrix.format.tile_columns} in {matrix.format.name}; the file is "
                "damaged: pack the original one again (edgeqwen pack)"
            )
        if tensor.n_bytes != expected:
            raise FileFormatError(
                f"{self._file.path}: {tensor.name} has {tensor.n_bytes} bytes of tiles, expected "
                f"{expected} for {tensor.shape} in {matrix.format.name}; the file is damaged: pack "
                "the original one again (edgeqwen pack)"
            )
        self._views.append(self._file.data(tensor.name))
        return int(self._views[-1].ctypes.data)

    def _place(self, m: Matrix) -> Matrix:
        if self._file.tensor(m.names[0]).layout is not None:
            return m
        return dataclasses.replace(m, address=self._region.address + m.address)

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

    def _sources(self, matrix: Matrix) -> list[Source]:
        """Returns what is packed into a matrix, one tensor after the other."""
        sources, tiles = [], matrix.address
        for name in matrix.names:
            n_rows = self._file.tensor(name).shape[0]
            sources.append(Source(matrix.format, self._file.data(name), n_rows, tiles))
            tiles += -(-n_rows // TILE_ROWS) * matrix.row_tiles * matrix.format.tile_bytes
        return sources


def _nothing() -> None:
    pass


def matrix_groups(config: ModelConfig) -> list[tuple[str, ...]]:
    """Returns the names of all matrices, those of one operation together.

    The embedding comes first, the head next unless it is the embedding, then four of each layer.
    """
    groups: list[tuple[str, ...]] = [("token_embd.weight",)]
    if not config.tie_word_embeddings:
        groups.append(("output.weight",))
    for i in range(config.n_layers):
        for names in (
            ("attn_q", "attn_k", "attn_v"),
            ("attn_output",),
            ("ffn_gate", "ffn_up"),
            ("ffn_down",),
        ):
            groups.append(tuple(f"blk.{i}.{name}.weight" for name in names))
    return groups


def physical_memory() -> int:
    """Returns the machine's memory in bytes, or more than any machine has where it isn't told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 62


def head_name(config: ModelConfig) -> str:
    """Returns the name of the matrix that makes the logits."""
    return "token_embd.weight" if config.tie_word_embeddings else "output.weight"


def format_in_memory(
    tensor: TensorInfo, config: ModelConfig, *, full_head: bool = False
) -> Format | None:
    """Returns the format in which a matrix is packed, or None if there is none for its type.

    A head is laid out for a screen where that pays, unless ``full_head``.
    """
    is_screened = tensor.name == head_name(config) and config.vocab_size >= LEAST_ROWS
    if is_screened and not full_head and tensor.type in SCREENED:
        return SCREENED[tensor.type]
    return FORMATS.get(tensor.type)


def _format(
    file: GgufFile | UnloadedModel, tensor: TensorInfo, config: ModelConfig, full_head: bool
) -> Format:
    found = format_in_memory(tensor, config, full_head=full_head)
    if tensor.layout is not None:
        # The layout is the file's; this version may lack it.
        by_name = {f.name: f for f in (*FORMATS.values(), *SCREENED.values())}
        found = by_name.get(tensor.layout)
        if found is not None and found.ggml_type != tensor.type:
            found = None
    if found is None:
        known = ", ".join(f.name for f in FORMATS.values())
        kind = tensor.layout or tensor.type.name
        raise UnsupportedError(
            f"{file.path}: {tensor.name} is {kind}, which this version can't run; it "
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
