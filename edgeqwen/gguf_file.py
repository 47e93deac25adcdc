"""GgufFile: a model in one GGUF file, or in several that belong together."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeqwen.config import ModelConfig
from edgeqwen.config_keys import shown
from edgeqwen.errors import FileFormatError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_shard import GgufShard
from edgeqwen.gguf_tensors import TensorInfo, check_shapes, split_fused

__all__ = ["GgmlType", "GgufFile", "TensorInfo"]

_SHARD_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


class GgufFile:
    """A model's GGUF file or files, with read-only views of the tensors.

    ``metadata`` holds Python scalars, strings and read-only sequences by key, those of the first
    file; ``tensors`` holds a TensorInfo by name, in the order of the files; ``size`` is in bytes,
    of all files. All three outlive ``close()``. Nobody may cut a file short while it is open: the
    system would end the process.
    """

    path: Path
    version: int
    size: int
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def __init__(self, path: Path, shards: Sequence[GgufShard]) -> None:
        self.path = path
        self._shards = tuple(shards)
        self.version, self.metadata = shards[0].version, shards[0].metadata
        self.size = sum(shard.size for shard in shards)
        self.tensors = {}
        # Tensors that stand for rows of others, known once the configuration is.
        self._parts: dict[str, TensorInfo] = {}
        self._places: dict[str, GgufShard] = {}
        for shard in shards:
            for name, tensor in shard.tensors.items():
                if name in self.tensors:
                    raise FileFormatError(
                        f"{shard.path}: {name} is in {self._places[name].path.name}, too; the "
                        "files don't belong together: download them again"
                    )
                self.tensors[name], self._places[name] = tensor, shard
        self._check_number_of_tensors()

    @classmethod
    def open(cls, path: str | Path) -> "GgufFile":
        """Maps a file and checks its header and the place of every tensor.

        Of a model in several files (``-00001-of-00003.gguf``), any may be named. Raises
        FileFormatError for a file that is missing, unreadable, damaged or no GGUF, and
        UnsupportedError for a sound one that this version can't read.
        """
        path = Path(path)
        named = GgufShard.open(path)
        shards = [named]
        try:
            if named.n_shards > 1:
                shards = _with_its_siblings(named)
            return cls(path, shards)
        except BaseException:
            for shard in shards:
                shard.close()
            raise

    @property
    def paths(self) -> list[Path]:
        """The files that the model is in."""
        return [shard.path for shard in self._shards]

    @property
    def is_packed(self) -> bool:
        """Whether matrices lie in the file as tiles, for kernels to read in place."""
        return any(tensor.layout is not None for tensor in self.tensors.values())

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns a tensor's bytes as they lie in the file: a read-only uint8 view [n_bytes].

        The view keeps the mapping alive, beyond ``close()`` too. Raises ClosedError after
        ``close()`` and KeyError for a name that isn't in ``tensors``.
        """
        return self._places[name].data(self.tensor(name))

    def release(self, name: str, start: int = 0, stop: int | None = None) -> None:
        """Lets the system take back the memory of a tensor's bytes; reading loads them again."""
        tensor = self.tensor(name)
        self._places[name].release(tensor, start, tensor.n_bytes if stop is None else stop)

    def read_ahead(self) -> Callable[[], None]:
        """Has the system begin to read all of the model, which will be needed soon.

        Returns a function that ends it; ``close`` doesn't.
        """
        stops = [shard.read_ahead() for shard in self._shards]

        def stop_all() -> None:
            for stop in stops:
                stop()

        return stop_all

    def tensor(self, name: str) -> TensorInfo:
        """Returns a tensor of the network by its name, q, k and v also where the file fuses them.

        These are known after ``config()``. Raises KeyError for a name that there isn't.
        """
        return self._parts[name] if name in self._parts else self.tensors[name]

    def place(self, tensor: TensorInfo) -> tuple[int, int]:
        """Returns which file a tensor is in, and where: the order in which files are read."""
        return self._shards.index(self._places[tensor.name]), tensor.offset

    def config(self) -> ModelConfig:
        """Reads the configuration and checks that every tensor is there and in shape.

        Raises FileFormatError for a file that contradicts itself, UnsupportedError for a model
        that can't be run.
        """
        embedding = self.tensors.get("token_embd.weight")
        config = ModelConfig.from_gguf(
            self.metadata,
            source=str(self.path),
            vocab_size=embedding.shape[0] if embedding else None,
            tied="output.weight" not in self.tensors,
        )
        check_shapes(self.tensors, config, str(self.path))
        if len({t.layout is None for t in self.tensors.values() if len(t.shape) > 1}) > 1:
            raise FileFormatError(
                f"{self.path}: some of the model's matrices are packed and others aren't; pack all "
                "of the original model (edgeqwen pack)"
            )
        for fused, parts in split_fused(self.tensors, config, str(self.path)).items():
            self._parts |= {part.name: part for part in parts}
            self._places |= {part.name: self._places[fused] for part in parts}
        return config

    def close(self) -> None:
        """Gives the mappings back, once no view of them is left; may be called twice."""
        for shard in self._shards:
            shard.close()

    def __enter__(self) -> "GgufFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_number_of_tensors(self) -> None:
        expected = self.metadata.get("split.tensors.count")
        if expected is not None and len(self._shards) > 1 and expected != len(self.tensors):
            raise FileFormatError(
                f"{self.path}: the {len(self._shards)} files hold {len(self.tensors)} tensors, "
                f"expected {shown(expected)} (split.tensors.count); download them again"
            )


def _with_its_siblings(named: GgufShard) -> list[GgufShard]:
    """Opens the other files of a model, which are named like the one at hand."""
    match = _SHARD_NAME.fullmatch(named.path.name)
    if match is None or int(match["count"]) != named.n_shards:
        expected = f"NAME-{named.index + 1:05d}-of-{named.n_shards:05d}.gguf"
        raise FileFormatError(
            f"{named.path}: is one of {named.n_shards} files of a model, expected the name "
            f"{expected}, by which the others are found; give the files their names back"
        )
    names = [
        f"{match['stem']}-{i + 1:05d}-of-{named.n_shards:05d}.gguf" for i in range(named.n_shards)
    ]
    missing = [name for name in names if not (named.path.parent / name).exists()]
    if missing:
        raise FileFormatError(
            f"{named.path}: is one of {named.n_shards} files of a model, and "
            f"{' and '.join(missing[:3])}{' and others' if len(missing) > 3 else ''} "
            f"{'is' if len(missing) == 1 else 'are'} missing beside it; download the whole model "
            "into one folder"
        )
    shards: list[GgufShard] = []
    try:
        for i, name in enumerate(names):
            at_hand = name == named.path.name
            shard = named if at_hand else GgufShard.open(named.path.parent / name)
            shards.append(shard)
            if (shard.index, shard.n_shards) != (i, named.n_shards):
                raise FileFormatError(
                    f"{shard.path}: says that it is file {shard.index + 1} of {shard.n_shards}, "
                    "which its name doesn't; give the files their names back"
                )
    except BaseException:
        for shard in shards:
            shard.close()
        raise
    return shards
