"""Arrays of strings: UTF-8 checked string by string, also thousands of them in one go."""

from typing import Any

import numpy as np
import pytest

from edgeqwen import gguf_arrays, gguf_shard
from edgeqwen.errors import FileFormatError
from edgeqwen.gguf_arrays import StringArray, read_strings
from edgeqwen.gguf_shard import GgufShard
from tests.gguf_bytes import text
from tests.gguf_samples import write_tiny_gguf

# So many strings are checked together.
MANY = gguf_arrays._TOGETHER


def read(strings: list[bytes]) -> StringArray:
    block = b"before" + b"".join(map(text, strings))
    found, end = read_strings(block + b"behind", 6, len(block), len(strings), "a.gguf: k")
    assert end == len(block)
    return found


@pytest.mark.parametrize(
    "strings",
    [
        [],
        [""],
        ["a", "", "é", "雪", "🦙"],
        # Lengths that would be no UTF-8, and some that would end a character.
        ["a" * 127, "a" * 128, "é" * 64, "a" * 0xC3, "a" * 0x180, "é", "a" * 0x80],
        ["ä" * 100, *["é"] * 300, "雪" * 100],
        [*["ab"] * (MANY - 1), "é", "ö" * 90, *["cd"] * MANY, "雪"],
        [*["é"] * (2 * MANY)],
    ],
)
def test_strings_as_they_were(strings: list[str]) -> None:
    for found in (read([string.encode() for string in strings]), StringArray.of(strings)):
        assert found == strings
        assert list(found) == found.tolist() == strings
        assert found.lengths().tolist() == [len(string.encode()) for string in strings]


@pytest.mark.parametrize(
    "bad",
    [
        *(b"\x80", b"\xbf", b"\xc3", b"a\xc3", b"\xc3a", b"\xc0\x80", b"\xc1\xbf", b"\xc3\xc3\xa4"),
        *(b"\xc3\xa4\xa4", b"\xe9\x9b", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"),
        *(b"\xf0\x9f\xa6", b"\xff", b"\xfe", b"\xdf", b"\xa4" * 200, b"\xc3" * 200),
    ],
)
@pytest.mark.parametrize("others", ["a", "é", "雪", "x" * 0xA4])
@pytest.mark.parametrize("index", [0, 5, MANY - 1, MANY, 2 * MANY + 1])
def test_strings_that_are_no_utf_8(bad: bytes, others: str, index: int) -> None:
    strings = [others.encode()] * (2 * MANY + 2)
    strings[index] = bad
    with pytest.raises(FileFormatError) as error:
        read(strings)
    assert str(error.value) == f"a.gguf: k[{index}] isn't valid UTF-8; the file is damaged"


def test_characters_do_not_go_on_in_the_next_string() -> None:
    """A length of 0xA4 would end the character that 0xC3 begins, if lengths were looked at."""
    for rest in (b"a" * 0xA4, b"a" * 0xA4A4, b"\xa4"):
        with pytest.raises(FileFormatError, match=r"k\[1\] isn't valid"):
            read([b"a", b"\xc3", rest])
    # In one string, what is missing at its end may stand at its beginning.
    for strings in ([b"\xe9\x9b", b"a" * 0xAA], [b"\xa4\xc3"], [b"\xa4a\xc3"]):
        with pytest.raises(FileFormatError, match=r"k\[0\] isn't valid"):
            read(strings)


def test_addresses_are_those_of_the_bytes() -> None:
    found = StringArray.of(["ab", "", "é"])
    data, starts = found.addresses()
    assert starts == found._starts.ctypes.data
    assert found._starts.tolist() == [8, 18, 26, 36]
    assert found._starts.dtype == np.uint32
    assert data == np.frombuffer(found._data, np.uint8).ctypes.data
    assert found._data == b"".join(bytes(8) + s for s in (b"ab", b"", "é".encode()))
    assert StringArray.of([]).addresses()[0]


def test_no_lone_surrogates() -> None:
    with pytest.raises(UnicodeEncodeError):
        StringArray.of(["a", "\ud800"])


def test_the_header_is_read_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of it is copied, and the memory of its pages given up."""
    released = []
    monkeypatch.setattr(gguf_shard, "release", lambda *place: released.append(place))
    write_tiny_gguf(tmp_path / "a.gguf")
    shard = GgufShard.open(tmp_path / "a.gguf")
    first = min(tensor.offset for tensor in shard.tensors.values())
    ((_, start, stop),) = released
    assert start == 0
    assert first - shard.alignment < stop <= first
    shard.close()
