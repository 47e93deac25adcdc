"""Importance matrix files that can't be right: refused in words, whatever is wrong with them."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeqwen.errors import EdgeqwenError, FileFormatError, UnsupportedError
from edgeqwen.quant.imatrix import Imatrix
from tests.gguf_samples import write_tiny_gguf
from tests.imatrix_samples import entry, legacy_bytes, sums, write_gguf_imatrix

Q = "blk.0.attn_q.weight"
WILD = [0, 1, -1, 2, 255, 1 << 16, 1 << 24, (1 << 31) - 1, -(1 << 31), 0x7F800000, 0x7FC00000]


def refused(path: Path, kind: type[EdgeqwenError] = FileFormatError) -> str:
    """Returns the message, without the path that it begins with."""
    with pytest.raises(kind) as error:
        Imatrix.read(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("kind", ["gguf", "dat"])
def test_sums_that_are_no_sums_of_squares(tmp_path: Path, value: float, kind: str) -> None:
    bad = sums(64)
    bad[9] = value
    path = tmp_path / f"x.{kind}"
    if kind == "gguf":
        write_gguf_imatrix(path, {Q: (bad, np.ones(1, np.float32))})
    else:
        path.write_bytes(legacy_bytes({Q: (bad, 3)}))
    message = refused(path)
    assert message.startswith(f"{Q}: the sum of column 9 is {value if kind == 'gguf' else ''}")
    assert message.endswith(
        ", expected a finite one of at least 0, for it is of squares; collect the importance "
        "matrix again"
    )


@pytest.mark.parametrize("count", [-1.0, np.nan, np.inf, 3e12])
def test_counts_that_can_not_be(tmp_path: Path, count: float) -> None:
    path = write_gguf_imatrix(tmp_path / "x.gguf", {Q: entry(64, count)})
    assert refused(path) == (
        f"{Q}: was collected from {np.float32(count):g} tokens, expected 0 to 1099511627776; "
        "collect the importance matrix again"
    )


def test_a_sum_without_a_count(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    others = {f"{Q}.in_sum2": sums(64), "a.in_sum2": sums(3), "a.counts": np.ones(1, np.float32)}
    write_gguf_imatrix(path, {}, others=others)
    end = "; collect the importance matrix again"
    assert refused(path) == f"holds {Q}.in_sum2, but not {Q}.counts{end}"
    write_gguf_imatrix(path, {}, others={f"{Q}.counts": np.ones(1, np.float32)})
    assert refused(path) == f"holds {Q}.counts, but not {Q}.in_sum2{end}"


def test_another_type(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    write_gguf_imatrix(path, {Q: (np.ones(64, np.float16), np.ones(1, np.float32))})
    assert refused(path) == f"{Q}.in_sum2 is F16, expected F32; collect the importance matrix again"


@pytest.mark.parametrize("shapes", [((4, 16), (4, 1)), ((64,), (4,)), ((4, 16), (1,))])
def test_experts(tmp_path: Path, shapes: tuple[tuple[int, ...], ...]) -> None:
    in_sum2, counts = sums(64).reshape(shapes[0]), np.ones(shapes[1], np.float32)
    path = write_gguf_imatrix(tmp_path / "x.gguf", {Q: (in_sum2, counts)})
    assert refused(path, UnsupportedError) == (
        f"{Q} has the sums of 4 matrices, as models with experts have them, expected those of one; "
        "collect them from a Qwen2.5 model"
    )


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"imatrix.chunk_count": "3"}, "imatrix.chunk_count is '3', expected a number from 0 to 4"),
        ({"imatrix.chunk_size": 1.5}, "imatrix.chunk_size is 1.5, expected a number from 0 to 42"),
        ({"imatrix.datasets": "x"}, "imatrix.datasets is 'x', expected a list of names"),
        ({"imatrix.datasets": [1, 2]}, "imatrix.datasets is a list of 2, expected a list of names"),
    ],
)
def test_metadata(tmp_path: Path, metadata: dict[str, Any], message: str) -> None:
    path = write_gguf_imatrix(tmp_path / "x.gguf", {Q: entry(64)}, metadata)
    assert refused(path).startswith(message)


def test_a_model(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    write_tiny_gguf(path, n_layers=1)
    end = "; edgeqwen imatrix makes one from a model and a text"
    expected = f", expected an importance matrix{end}"
    assert refused(path) == f"is a GGUF file of the type 'model'{expected}"
    write_gguf_imatrix(path, {})
    assert refused(path) == f"is an empty one{expected}"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"Why is the sky blue? Because of Rayleigh scattering.", "plain text"),
        (b"PK\x03\x04" + bytes(range(60)), "a zip archive, perhaps a PyTorch checkpoint; saf"),
        (bytes(100), "nothing but zero bytes, perhaps an unfinished download"),
        (b"\x01", "no known format"),
    ],
)
def test_something_else(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "x.dat"
    path.write_bytes(content)
    message = refused(path)
    assert message.startswith(f"is {what}")
    assert ", expected an importance matrix; edgeqwen imatrix makes one from a model" in message


def test_nothing(tmp_path: Path) -> None:
    assert refused(tmp_path / "x.gguf") == "no such file"
    (tmp_path / "x.gguf").touch()
    assert refused(tmp_path / "x.gguf").startswith("is empty, ")


def longer(name: str | bytes) -> bytes:
    return legacy_bytes({name: (sums(64), 3)})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            longer(Q)[:280],
            f"the values of {Q} would take 256 bytes from byte 35 on, but the file ends",
        ),
        (longer(b"\xff\xfe"), "the name of entry 0 isn't valid UTF-8"),
        (longer("a\nb"), "the name of entry 0 is 'a\\nb', expected a readable name"),
        (longer("x" * 56), "the length of the name of entry 0 is 56, expected 1 to 55"),
        (legacy_bytes({Q: (sums(0), 3), "b": (sums(64), 3)}), f"the columns of {Q} is 0, expected"),
        (legacy_bytes({Q: (sums(64), -3)}), f"the windows of {Q} is -3, expected 0 to 2147483647"),
        (
            struct.pack("<i", 2) + 2 * longer("ab")[4:-15],
            "two entries are named ab",
        ),
        (longer(Q) + b"x", "goes on after its end at byte 306"),
        (
            longer(Q)[:-1],
            "the text's name would take 7 bytes from byte 299 on, but the file ends at byte 305",
        ),
    ],
    ids=lambda x: "" if isinstance(x, bytes) else x[:30],
)
def test_damaged_files_of_the_old_format(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "x.dat"
    path.write_bytes(content)
    message = refused(path)
    assert message.startswith(problem)
    assert message.endswith(
        "; the importance matrix is truncated or damaged, collect or download it again"
    )


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("imatrix") / "x.gguf"
    write_gguf_imatrix(path, {Q: entry(64), "b": entry(32)})
    legacy = legacy_bytes({Q: (sums(64), 3), "b": (sums(32), 3)})
    return {"gguf": path.read_bytes(), "dat": legacy}


def check_message(message: str) -> None:
    assert "\n" not in message
    assert len(message) < 1000


@settings(deadline=None, max_examples=200)
@given(data=st.data(), kind=st.sampled_from(["gguf", "dat"]))
def test_random_damage(
    tmp_path_factory: pytest.TempPathFactory,
    contents: dict[str, bytes],
    data: st.DataObject,
    kind: str,
) -> None:
    """What is let in has sums and counts that can be; the rest is refused in a line."""
    content = bytearray(contents[kind])
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, max(len(content) - 4, 0)))
        match data.draw(st.sampled_from(["number", "flip", "cut", "insert"])):
            case "number":
                content[at : at + 4] = struct.pack("<i", data.draw(st.sampled_from(WILD)))
            case "flip":
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del content[max(at, 1) :]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    path = tmp_path_factory.getbasetemp() / "damaged-imatrix"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        found = Imatrix.read(path)
    except EdgeqwenError as error:
        check_message(str(error))
        return
    assert found.entries
    for name, part in found.entries.items():
        assert part.in_sum2.ndim == 1
        assert np.isfinite(part.in_sum2).all()
        assert (part.in_sum2 >= 0).all()
        assert part.count >= 0
        importance = found.importance(name)
        assert importance is None or np.isfinite(importance).all()
