"""Reads session files by docs/sessions.md alone: offsets and types come from the page's tables."""

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sessions.md"
UNIT = 65536
_CODES = {"u32": "<I", "u64": "<Q", "f64": "<d"}


class SessionReader:
    """A session file: ``identity`` and ``record``, the newest, by the names of the page's fields.

    ``boot``: the run of the system, as a record names it. Raises AssertionError where a checksum
    is wrong.
    """

    def __init__(self, data: bytes, boot: bytes) -> None:
        self._data = data
        self.identity = self._fields("Identity", 0)
        assert self.identity["checksum"] == zlib.crc32(data[24:388])
        records = [self._fields("Commit record", slot * UNIT) for slot in (1, 2)]
        records = [r for i, r in enumerate(records, 1) if self._is_whole(i * UNIT, r)]
        self.record = max(records, key=lambda record: record["number"])
        if self.record["boot"] != boot or boot == bytes(16):
            self.record["n_tokens"] = self.record["n_stored"]
            self.record["tokens_crc"] = self.record["stored_crc"]
            for name in ("unit", "bytes"):
                self.record[f"transcript_{name}"] = self.record[f"stored_{name}"]
            self.record["transcript_crc"] = self.record["stored_transcript_crc"]

    def tokens(self) -> list[int]:
        ids = np.concatenate(
            [
                self._at(self._place("Segment", "tokens") + start, 1024).view("<i4")
                for start in self._segments()
            ]
            or [np.zeros(0, np.int32)]
        )[: self.record["n_tokens"]]
        assert zlib.crc32(ids.astype("<i4").tobytes()) == self.record["tokens_crc"]
        found: list[int] = ids.tolist()
        return found

    def transcript(self) -> bytes:
        start = self.record["transcript_unit"] * UNIT
        data = self._data[start : start + self.record["transcript_bytes"]]
        assert zlib.crc32(data) == self.record["transcript_crc"]
        return data

    def n_covered(self) -> int:
        """Returns how many positions have a seal, which must be right."""
        n = 0
        for start in self._segments():
            fields = self._fields("Segment", start)
            kv = self._kv(start)
            covered = fields["covered"]
            for position in range(covered, 256):
                for part in self._parts(kv, position):
                    part[:] = 0
            assert covered == 0 or fields["seal"] == zlib.crc32(kv.tobytes())
            n += covered
        return n

    def keys_and_values(self, position: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns a token's K and V: float32 [n_layers, n_kv_heads, head_dim] each."""
        kv = self._kv(self._segments()[position // 256])
        k_scales, k_codes, v_scales, v_codes = self._parts(kv, position % 256)
        return self._numbers(k_scales, k_codes), self._numbers(v_scales, v_codes)

    def _parts(self, kv: NDArray[np.uint8], position: int) -> list[NDArray[np.uint8]]:
        """Returns views of a position's bytes: K's scales and elements, and V's.

        Scales: [layers, heads, head_dim / 32, 2, or 0]; elements: [.., head_dim / 32, bytes of 32].
        """
        found = []
        for part, positions in ((kv[:, :, 0], 32), (kv[:, :, 1], 64)):
            n_blocks = self.identity["head_dim"] // 32
            blocks = part.reshape(*part.shape[:2], 256 // positions, n_blocks, -1)
            blocks = blocks[:, :, position // positions]
            n_scales = 2 * positions if self._kind in ("q8_0", "q4_0") else 0
            scales, elements = blocks[..., :n_scales], blocks[..., n_scales:]
            inside = position % positions
            found.append(scales[..., 2 * inside : 2 * inside + 2])
            if positions == 64:
                rows = elements.reshape(*elements.shape[:-1], 64, -1)
                found.append(rows[..., inside, :])
            else:
                rows = elements.reshape(*elements.shape[:-1], self._key_rows, 32, -1)
                found.append(rows[..., inside, :])
        return found

    def _numbers(self, scales: NDArray[np.uint8], elements: NDArray[np.uint8]) -> NDArray[Any]:
        shape = (*elements.shape[:2], self.identity["head_dim"])
        data = np.ascontiguousarray(elements).reshape(*scales.shape[:3], -1)
        if self._kind == "bf16":
            return (data.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
        if self._kind in ("f16", "f32"):
            kind = {"f16": "<f2", "f32": "<f4"}[self._kind]
            return data.view(kind).astype(np.float32).reshape(shape)
        codes = data.view(np.int8).astype(np.float32)
        if self._kind == "q4_0":
            halves = np.concatenate([data & 15, data >> 4], axis=-1).astype(np.float32)
            codes = np.where(halves < 8, halves, halves - 16)
        scale = np.ascontiguousarray(scales).view("<f2").astype(np.float32)
        return (scale * codes).reshape(shape)

    @property
    def _kind(self) -> str:
        name: bytes = self.identity["cache_type"]
        return name.rstrip(b"\0").decode()

    @property
    def _key_rows(self) -> int:
        return 16 if self._kind == "q4_0" else 32

    def _kv(self, start: int) -> NDArray[np.uint8]:
        """Returns a copy of a segment's keys and values: [n_layers, n_kv_heads, 2, bytes]."""
        sizes = self.identity
        kv = self._at(self._place("Segment", "kv") + start, sizes["segment_bytes"])
        return kv.reshape(sizes["n_layers"], sizes["n_kv_heads"], 2, -1)

    def _segments(self) -> list[int]:
        """Returns where the segments of the tokens begin, in bytes."""
        n = -(-self.record["n_tokens"] // 256)
        return [unit * UNIT for unit in self.record["segments"][:n]]

    def _at(self, start: int, size: int) -> NDArray[np.uint8]:
        return np.frombuffer(self._data[start : start + size], np.uint8).copy()

    def _is_whole(self, start: int, record: dict[str, Any]) -> bool:
        end = start + record["n_bytes"]
        return record["checksum"] == zlib.crc32(self._data[start + 4 : end])

    def _fields(self, table: str, start: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for offset, kind, name in _rows(table):
            place = start + offset
            if kind in _CODES:
                (found[name],) = struct.unpack_from(_CODES[kind], self._data, place)
            elif kind == "u32 each":
                found[name] = struct.unpack_from(f"<{found['n_segments']}I", self._data, place)
            elif kind.endswith(" bytes"):
                found[name] = self._data[place : place + int(kind.split()[0])]
        return found

    @staticmethod
    def _place(table: str, field: str) -> int:
        return next(offset for offset, _, name in _rows(table) if name == field)


def _rows(table: str) -> list[tuple[int, str, str]]:
    """Returns the offset, type and name of a table's fields."""
    section = PAGE.read_text("utf-8").split(f"### {table}\n")[1].split("\n##")[0]
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \| `(\w+)` \|", section, re.MULTILINE)
    return [(int(offset), kind, name) for offset, kind, name in rows]
