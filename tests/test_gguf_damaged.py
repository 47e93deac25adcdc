"""Damaged and unsupported GGUF files, and files of other kinds: what is said about each."""

import struct
from pathlib import Path

import gguf
import pytest

from edgeqwen.errors import EdgeqwenError, FileFormatError, UnsupportedError
from edgeqwen.ggml_types import GgmlType
from edgeqwen.gguf_file import GgufFile
from tests.gguf_bytes import array, pair, raw, tensor, text

ADVICE = "; the file is truncated or damaged, download or convert it again"


def refused(path: Path, content: bytes) -> EdgeqwenError:
    """Returns the error for such a file, once it names the file and fits on a line."""
    path.write_bytes(content)
    with pytest.raises(EdgeqwenError) as error:
        GgufFile.open(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return error.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_every_type_is_sized(path: Path) -> None:
    for kind in GgmlType:
        n_bytes = 256 * 3 // kind.block_size * kind.type_size
        content = raw(tensors=(tensor("x", (256, 3), kind),), data=n_bytes)
        path.write_bytes(content)
        with GgufFile.open(path) as file:
            assert file.tensors["x"].type is kind
            assert file.tensors["x"].shape == (3, 256)
            assert file.tensors["x"].n_bytes == n_bytes
        assert f"x ({kind.name}, shape (3, 256)) reaches" in str(refused(path, content[:-1]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF\3\0\0\0", "holds 8 bytes, expected at least 24" + ADVICE),
        (raw(n_tensors=1 << 60), "claims 1152921504606846976 tensors, expected at most 65536"),
        (raw(n_tensors=9), "claims 9 tensors, but only 72 bytes follow" + ADVICE),
        (raw(n_keys=1 << 60), "claims 1152921504606846976 metadata keys, expected at most 65536"),
        (raw(n_keys=99), "claims 99 metadata keys, but only 72 bytes follow"),
        (raw(pair("", 4, bytes(4))), "metadata key 0 is '', expected a readable name"),
        (raw(pair("a\nb", 4, bytes(4))), "metadata key 0 is 'a\\nb', expected a readable name"),
        (raw(pair(b"\xff\xfe", 4, bytes(4))), "metadata key 0 isn't valid UTF-8"),
        (
            raw(struct.pack("<Q", 1 << 63) + bytes(20)),
            "metadata key 0 claims 9223372036854775808 bytes, expected at most 256",
        ),
        (
            raw(struct.pack("<Q", 200) + bytes(20)),
            "metadata key 0 at byte 32 takes 200 bytes, but the file ends at byte 128",
        ),
        (raw(pair("k", 13, bytes(8))), "k has the value type 13, expected 0 to 12"),
        (raw(pair("k", 8, struct.pack("<Q", 200))), "k at byte 45 takes 200 bytes, but the file"),
        (
            raw(pair("k", 8, struct.pack("<Q", (1 << 64) - 1))),
            "k claims 18446744073709551615 bytes, expected at most 268435456",
        ),
        (raw(pair("k", 8, text(b"\xc3"))), "k isn't valid UTF-8"),
        (raw(pair("k", 7, b"\2")), "k is 2, expected 0 (false) or 1 (true)"),
        (raw(pair("k", 9, array(7, 3, b"\1\0\3"))), "k is 3, expected 0 (false) or 1 (true)"),
        (raw(pair("k", 9, array(13, 1, bytes(8)))), "k is an array of the value type 13, expected"),
        (raw(pair("k", 9, array(4, 1000, b""))), "claims 1000 numbers in k, but only"),
        (
            raw(pair("k", 9, array(0, 1 << 62, b""))),
            "claims 4611686018427387904 numbers in k, expected at most 268435456",
        ),
        (raw(pair("k", 9, array(8, 1000, b""))), "claims 1000 strings in k, but only"),
        (
            raw(pair("k", 9, array(8, 1 << 40, b""))),
            "claims 1099511627776 strings in k, expected at most 4194304",
        ),
        (
            raw(pair("k", 9, array(8, 2, text("a") + struct.pack("<Q", 99)))),
            "k[1] runs past byte 160, where the strings must have ended" + ADVICE,
        ),
        (
            raw(pair("k", 9, array(8, 3, text("a" * 70) + text("b"))))[:141],
            "k[2] runs past byte 141",
        ),
        (
            raw(pair("k", 9, array(8, 2, struct.pack("<Q", (1 << 64) - 8) + bytes(40)))),
            "k[0] runs past byte",
        ),
        (raw(pair("k", 9, array(8, 2, text("a") + text(b"\xe9")))), "k[1] isn't valid UTF-8"),
        (
            raw(pair("k", 9, array(8, 2, text(b"\xc3") + text(b"\xa9")))),
            "k[0] isn't valid UTF-8",
        ),
        (
            raw(pair("k", 4, bytes(4)), pair("k", 4, bytes(4))),
            "the key k stands in the metadata twice",
        ),
        (
            raw(pair("general.alignment", 4, struct.pack("<I", 48))),
            "general.alignment is 48, expected a power of two from 8 to 2097152",
        ),
        (raw(pair("general.alignment", 4, bytes(4))), "general.alignment is 0, expected"),
        (raw(pair("general.alignment", 4, struct.pack("<I", 4))), "general.alignment is 4, "),
        (
            raw(pair("general.alignment", 10, struct.pack("<Q", 1 << 63))),
            "general.alignment is 9223372036854775808, expected",
        ),
        (raw(pair("general.alignment", 8, text("32"))), "general.alignment is '32', expected"),
        (raw(pair("general.alignment", 7, b"\1")), "general.alignment is True, expected"),
        (raw(tensors=(tensor("x" * 65),)), "the name of tensor 0 claims 65 bytes, expected at"),
        (raw(tensors=(tensor("x\0"),)), "the name of tensor 0 is 'x\\x00', expected a readable"),
        (raw(tensors=(tensor("x"), tensor("x", offset=32))), "two tensors are named x"),
        (raw(tensors=(tensor("x", ()),)), "x has 0 dimensions, expected 1 to 4"),
        (raw(tensors=(tensor("x", (1,) * 5),)), "x has 5 dimensions, expected 1 to 4"),
        (raw(tensors=(tensor("x", (4, 0)),)), "x has the shape (0, 4), which holds nothing"),
        (
            raw(tensors=(tensor("x", (896, 2), 12),)),
            "x: 896 columns is not a multiple of 256, which Q4_K needs",
        ),
        (raw(tensors=(tensor("x", (32,), 2, 8),)), "x begins at the offset 8, expected a multiple"),
        (
            raw(tensors=(tensor("x", (17,)),)),
            "x (F32, shape (17,)) reaches byte 132, but the file ends at byte 128" + ADVICE,
        ),
        (
            raw(tensors=(tensor("x", (1 << 63, 1 << 63, 1 << 63, 1 << 63)),)),
            "but the file ends at byte 160",
        ),
        (
            raw(tensors=(tensor("x", offset=(1 << 64) - 32),)),
            "x (F32, shape (4,)) reaches byte 18446744073709551664, but the file ends",
        ),
        (
            raw(tensors=(tensor("x", (9,)), tensor("y", offset=32))),
            "x reaches byte 132, but y begins at byte 128",
        ),
        (raw(tensors=(tensor("x"), tensor("y"))), "x reaches byte 112, but y begins at byte 96"),
    ],
)
def test_damaged_files(path: Path, content: bytes, message: str) -> None:
    error = refused(path, content)
    assert isinstance(error, FileFormatError)
    assert message in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (raw(version=0), "GGUF version 0, expected 2 or 3; convert the original checkpoint again"),
        (raw(version=1), "GGUF version 1, expected 2 or 3"),
        (raw(version=4), "GGUF version 4, expected 2 or 3"),
        (raw(version=3 << 24), "this GGUF file is big-endian; convert the original checkpoint"),
        (raw(pair("k", 9, array(9, 1, bytes(20)))), "k is an array of arrays, which no known"),
        (
            raw(tensors=(tensor("x", (32,), 31),)),
            "x is of the type Q4_0_4_4, which GGUF has given up; convert the original checkpoint",
        ),
        (raw(tensors=(tensor("x", (32,), 99),)), "x is of the type 99, which this version doesn't"),
    ],
)
def test_files_that_are_not_supported(path: Path, content: bytes, message: str) -> None:
    error = refused(path, content)
    assert isinstance(error, UnsupportedError)
    assert message in str(error)


def test_a_header_that_is_too_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeqwen.gguf_metadata.MAX_HEADER", 100)
    number = pair("a", 4, bytes(4))
    message = "the type of key 3 reaches byte 104, but no header is over 100 bytes"
    assert message in str(refused(path, raw(*[pair(f"key {i}", 4, bytes(4)) for i in range(4)])))
    strings = pair("k", 9, array(8, 9, text("a") * 9))
    assert "k[5] runs past byte 100" in str(refused(path, raw(strings)))
    path.write_bytes(raw(number))
    GgufFile.open(path).close()


def test_big_endian_file_by_gguf(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "qwen2", endianess=gguf.GGUFEndian.BIG)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert "this GGUF file is big-endian" in str(refused(path, path.read_bytes()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack("<Q", 999) + b'{"__metadata__":{}}', "a safetensors file; convert its folder"),
        (b"PK\3\4", "a zip archive, perhaps a PyTorch checkpoint; safetensors are needed"),
        (b"\x80\2}q", "a pickled PyTorch checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer, not the model"),
        (b"tjgg\1\0\0\0", "an old GGML file, from before GGUF"),
        (b"\x1f\x8b", "a gzip archive; unpack it first"),
        (b"\n<!DOCTYPE html>", "a web page, perhaps an error message in place of the download"),
        (b'{"model_type": "qwen2"}', "JSON"),
        (b"once upon a time", "plain text"),
        (b"", "nothing but zero bytes, perhaps an unfinished download"),
        (b"\x93\xff\0\1", "no known format (it starts with b'\\x93\\xff\\x00\\x01')"),
    ],
)
def test_files_of_another_kind(path: Path, content: bytes, message: str) -> None:
    padding = b" " if content.isascii() and content[:2].isalpha() else b"\0"
    error = refused(path, content + padding * 99)
    assert isinstance(error, FileFormatError)
    assert f"{path}: not a GGUF file, but {message}" in str(error)
