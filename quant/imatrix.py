"""Imatrix: how much each column of each matrix matters, as llama.cpp's importance matrices say it.

Source: llama.cpp's imatrix and quantize tools. For every matrix there are the sums, over the tokens
of a text, of the squares of what its columns were multiplied by; the mean square is the weight that
errors in a column have when the matrix is quantized.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeqwen.errors import OptionError
from edgeqwen.mapped_file import map_file, unmap
from edgeqwen.quant.imatrix_gguf import read_gguf, write_gguf
from edgeqwen.quant.imatrix_legacy import read_legacy
from edgeqwen.quant.imatrix_parts import Entry, ImatrixParts, summed_entry

# The embeddings are looked up, not multiplied; the output's input is collected only when asked for.
_OFTEN_ABSENT = ("token_embd.weight", "output.weight")


@dataclass(frozen=True, eq=False)
class Imatrix:
    """Entries by tensor name: an ``Entry`` has ``in_sum2``, float32 [columns], and ``count``.

    ``chunk_count`` windows of ``chunk_size`` tokens were read, of the texts named by ``datasets``;
    ``source`` is what messages call this importance matrix.
    """

    entries: Mapping[str, Entry]
    chunk_count: int = 0
    chunk_size: int = 0
    datasets: tuple[str, ...] = ()
    source: str = "the importance matrix"

    @property
    def n_tokens(self) -> int:
        """The tokens that the sums are of: the most that an entry counts."""
        return max((entry.count for entry in self.entries.values()), default=0)

    def importance(self, name: str) -> NDArray[np.float32] | None:
        """Returns the mean squares of a matrix's inputs: float32 [columns], not negative.

        None where no column is known to matter more than another: if there is no entry, or one
        without tokens, or all its sums are zero.
        """
        entry = self.entries.get(name)
        if entry is None or entry.count == 0 or not entry.in_sum2.any():
            return None
        mean: NDArray[np.float32] = entry.in_sum2 / np.float32(entry.count)
        return mean

    def check(self, columns: Mapping[str, int], model: str) -> list[str]:
        """Compares the entries with a model's matrices; returns notes for the user.

        ``columns``: the number of each matrix's columns by name; ``model``: what messages call it.
        Raises OptionError for an entry that doesn't fit its matrix.
        """
        for name, entry in self.entries.items():
            if name in columns and len(entry.in_sum2) != columns[name]:
                raise OptionError(
                    f"{self.source}: {name} has {len(entry.in_sum2)} columns, but {columns[name]} "
                    f"in {model}: it is another model's; collect one from this model"
                )
        notes = []
        unknown = [n for n in columns if n not in _OFTEN_ABSENT and self.importance(n) is None]
        if unknown:
            notes.append(
                f"{self.source} says nothing of {len(unknown)} of {len(columns)} matrices, the "
                f"first is {unknown[0]}: their columns count alike"
            )
        others = [name for name in self.entries if name not in columns]
        if others:
            notes.append(
                f"{self.source} has {len(others)} entries that are no matrices of {model}, the "
                f"first is {others[0]}: it may be another model's"
            )
        return notes

    def merged(self, earlier: Sequence["Imatrix"]) -> "Imatrix":
        """Returns the sums of this one and of earlier ones, whose datasets come first.

        Raises OptionError where they don't have the same columns.
        """
        if not earlier:
            return self
        matrices = (*earlier, self)
        sums: dict[str, NDArray[np.float64]] = {}
        counts: dict[str, int] = {}
        for i, matrix in enumerate(matrices):
            for name, entry in matrix.entries.items():
                total = sums.setdefault(name, np.zeros(len(entry.in_sum2)))
                if len(total) != len(entry.in_sum2):
                    first = next(m for m in matrices[:i] if name in m.entries)
                    raise OptionError(
                        f"{matrix.source}: {name} has {len(entry.in_sum2)} columns, but "
                        f"{len(total)} in {first.source}; combine those of one model"
                    )
                total += entry.in_sum2
                counts[name] = counts.get(name, 0) + entry.count
        n_tokens = max(counts.values(), default=0)
        return Imatrix(
            {name: summed_entry(sums[name], counts[name], name) for name in sums},
            n_tokens // self.chunk_size if self.chunk_size else 0,
            self.chunk_size,
            tuple(name for matrix in matrices for name in matrix.datasets),
        )

    @classmethod
    def read(cls, path: str | Path) -> "Imatrix":
        """Reads an importance matrix: a GGUF file, or one of the format before it (.dat).

        Raises FileFormatError for a file that is missing, damaged or something else, and
        UnsupportedError for one of a model with experts.
        """
        path = Path(path)
        mapping = map_file(path)
        is_gguf = mapping[:4] == b"GGUF"
        unmap(mapping)
        return cls(*(read_gguf if is_gguf else read_legacy)(path), source=str(path))

    def write(self, path: str | Path) -> None:
        """Writes a GGUF file that llama.cpp reads; it appears when it is complete.

        Raises OptionError if there are no entries or the place can't be written to, EdgeqwenError
        if writing fails.
        """
        parts = ImatrixParts(dict(self.entries), self.chunk_count, self.chunk_size, self.datasets)
        write_gguf(Path(path), parts)
