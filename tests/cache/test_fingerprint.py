"""The digest of a model's weights: of what they are, and found without reading them again."""

import os
from pathlib import Path
from typing import Any

import pytest

from edgeqwen.cache import fingerprint
from edgeqwen.cache.fingerprint import is_known, weights_digest
from edgeqwen.gguf_file import GgufFile
from tests.gguf_samples import write_tiny_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGEQWEN_CACHE_DIR", str(folder))
    monkeypatch.setattr(fingerprint, "PART_BYTES", 1000)
    return folder


def digest(path: Path, n_threads: int = 2) -> bytes:
    with GgufFile.open(path) as file:
        return weights_digest(file, n_threads)


def read_digest(path: Path, n_threads: int = 2) -> bytes:
    """Returns the digest as it is computed from the file."""
    with GgufFile.open(path) as file:
        return fingerprint._digest(file, n_threads)


def written(path: Path, **options: Any) -> Path:
    write_tiny_gguf(path, **options)
    return path


def test_the_same_in_any_number_of_threads(tmp_path: Path) -> None:
    path = written(tmp_path / "model.gguf")
    found = {read_digest(path, n_threads) for n_threads in (1, 2, 7)}
    assert len(found) == 1
    assert len(found.pop()) == 32


def test_every_tensor_counts_and_nothing_else(tmp_path: Path) -> None:
    same = [
        written(tmp_path / "a.gguf", n_layers=2),
        written(tmp_path / "b.gguf", n_layers=2, metadata={"general.name": "another name"}),
        written(tmp_path / "c.gguf", n_layers=2, version=2),
    ]
    assert len({read_digest(path) for path in same}) == 1
    others = [
        same[0],
        written(tmp_path / "d.gguf", n_layers=2, seed=1),
        written(tmp_path / "e.gguf", n_layers=2, types="F16"),
    ]
    data = same[0].read_bytes()
    assert b"blk.1.ffn_up.weight" in data
    changes = [
        data[:-1] + bytes([data[-1] ^ 1]),  # weights are what the file ends with
        data[:-5000] + bytes([data[-5000] ^ 1]) + data[-4999:],
        # Two tensors of the same shape change places.
        data.replace(b"blk.0.ffn_up", b"blk.0.xxx_xx")
        .replace(b"blk.1.ffn_up", b"blk.0.ffn_up")
        .replace(b"blk.0.xxx_xx", b"blk.1.ffn_up"),
    ]
    for i, change in enumerate(changes):
        others.append(tmp_path / f"changed{i}.gguf")
        others[-1].write_bytes(change)
    digests = [read_digest(path) for path in others]
    assert len({*digests}) == len(others)


def test_it_is_computed_once_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "model.gguf")
    first = digest(path)
    with GgufFile.open(path) as file:
        assert is_known(file)
    monkeypatch.setattr(fingerprint, "_digest", lambda *_: b"n" * 32)
    assert digest(path) == first
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    assert digest(link) == first


def test_a_file_that_was_changed_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "model.gguf")
    first, status = digest(path), path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    # Also where its time was set back.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if os.name != "nt":
        assert digest(path) != first
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert digest(path) != first


def test_every_part_of_a_split_model_counts(tmp_path: Path) -> None:
    whole = written(tmp_path / "model.gguf")
    folder = tmp_path / "split"
    folder.mkdir()
    write_tiny_gguf(folder / "model.gguf", shard_tensors=4)
    first = min(folder.glob("*.gguf"))
    assert read_digest(first) == read_digest(whole)
    before = digest(first)
    last = max(folder.glob("*.gguf"))
    data = bytearray(last.read_bytes())
    data[-1] ^= 1
    last.write_bytes(data)
    assert digest(first) != before


@pytest.mark.parametrize("content", [b"", b"xyz", b"00" * 31, b"\xff\xfe"])
def test_a_damaged_memory_of_it_is_made_anew(tmp_path: Path, cache: Path, content: bytes) -> None:
    path = written(tmp_path / "model.gguf")
    first = digest(path)
    (kept,) = (cache / "weights").iterdir()
    kept.write_bytes(content)
    assert digest(path) == first
    assert kept.read_text() == first.hex()


def test_a_cache_that_can_not_be_written_only_costs_time(tmp_path: Path, cache: Path) -> None:
    cache.write_text("no folder")
    path = written(tmp_path / "model.gguf")
    assert digest(path) == read_digest(path)
    with GgufFile.open(path) as file:
        assert not is_known(file)
