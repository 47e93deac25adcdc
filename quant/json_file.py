"""Reads the JSON files of a checkpoint, none of which is trusted."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from edgeqwen.config_keys import shown
from edgeqwen.errors import FileFormatError

MAX_JSON_BYTES = 4 << 20
# Parsing takes up to 30 times the size. The largest real one, with every merge on four lines,
# takes 11 MB.
MAX_TOKENIZER_BYTES = 32 << 20


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Reads a file that holds one JSON object, of at most ``limit`` bytes.

    Raises FileFormatError if it is missing, too large, no UTF-8, no JSON, or not an object.
    """
    return parse_json(read_bytes(path, limit), str(path))


def read_bytes(path: Path, limit: int) -> bytes:
    """Reads a whole file of at most ``limit`` bytes; FileFormatError if that can't be done."""
    try:
        # Before opening it: opening a pipe would wait for a writer.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileFormatError(f"{path}: is no regular file")
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FileFormatError(f"{path}: can't be read ({error.strerror or error})") from None
    if len(data) > limit:
        raise FileFormatError(f"{path}: larger than {limit >> 20} MiB, which no such file needs")
    return data


def read_text(path: Path, limit: int) -> str:
    """Reads a whole UTF-8 file, with or without a byte order mark; else FileFormatError."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: not UTF-8 text (byte {error.start})") from None


def parse_json(data: bytes, source: str) -> dict[str, Any]:
    """Parses bytes that hold one JSON object; ``source`` names them in errors.

    Raises FileFormatError for anything else, and for an object that names a key twice: readers
    differ in which value they take.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{source}: not UTF-8 text (byte {error.start})") from None
    except _DuplicateKeyError as error:
        raise FileFormatError(f"{source}: the key {shown(error.args[0])} stands twice") from None
    except json.JSONDecodeError as error:
        raise FileFormatError(
            f"{source}: not JSON ({error.msg} at line {error.lineno}, column {error.colno}); "
            "the file may be truncated"
        ) from None
    except (RecursionError, ValueError):
        # Brackets nested beyond reason, or a number of thousands of digits.
        raise FileFormatError(
            f"{source}: JSON that nests too deep or holds a huge number"
        ) from None
    if not isinstance(value, dict):
        raise FileFormatError(f"{source}: holds {shown(value)}, expected a JSON object")
    return value


class _DuplicateKeyError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return result
