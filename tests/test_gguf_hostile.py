"""GGUF files damaged in every way that comes to mind: opened soundly, or refused in words."""

import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeqwen.errors import EdgeqwenError
from edgeqwen.gguf_file import GgufFile
from edgeqwen.gguf_metadata import HeaderReader
from tests.gguf_samples import write_tiny_gguf

MAX_BYTES = 20_000_000
MAX_SECONDS = 5.0

WILD_32 = [0, 1, 2, 5, 9, 255, 1 << 16, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
WILD_64 = [
    *WILD_32,
    1 << 32,
    1 << 40,
    (1 << 61) - 1,
    1 << 61,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 32,
    (1 << 64) - 8,
    (1 << 64) - 1,
]


class Target:
    """A small sound file, the places of its numbers, and a place for its damaged twins."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "model.gguf"
        sizes = {"hidden_size": 32, "intermediate_size": 32, "n_layers": 1, "vocab_size": 280}
        write_tiny_gguf(self.path, types={"blk.0.ffn_up": "Q4_0", "token_embd": "Q8_0"}, **sizes)
        self.content = self.path.read_bytes()
        self.fields: list[tuple[int, int]] = []
        with pytest.MonkeyPatch.context() as patch:
            for name, size in (("u32", 4), ("u64", 8)):
                patch.setattr(HeaderReader, name, self._recording(name, size))
            file = GgufFile.open(self.path)
        self.data_start = min(tensor.offset for tensor in file.tensors.values())
        file.close()

    def _recording(self, name: str, size: int) -> object:
        original = getattr(HeaderReader, name)

        def read(reader: HeaderReader, what: str) -> int:
            self.fields.append((reader.position, size))
            return original(reader, what)

        return read

    def check(self, content: bytes) -> bool:
        """Opens such a file and uses all of it; returns whether it was let in."""
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(content)
        start = time.monotonic()
        tracemalloc.start()
        try:
            return self._use(len(content))
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < MAX_BYTES
            assert time.monotonic() - start < MAX_SECONDS

    def _use(self, size: int) -> bool:
        try:
            file = GgufFile.open(self.path)
        except EdgeqwenError as error:
            self._check_message(str(error))
            return False
        with file:
            end = 0
            for info in sorted(file.tensors.values(), key=lambda info: info.offset):
                assert end <= info.offset
                end = info.offset + info.n_bytes
                assert end <= size
                data = file.data(info.name)
                assert data.shape == (info.n_bytes,) == (info.type.n_bytes(info.shape),)
                data.sum()
                file.release(info.name)
            for value in file.metadata.values():
                if not isinstance(value, str | int | float):
                    assert len(list(value)) == len(value) == len(value.tolist())
            try:
                config = file.config()
            except EdgeqwenError as error:
                self._check_message(str(error))
                return True
            for name, shape in config.expected_tensors().items():
                assert file.tensors[name].shape == shape
        return True

    def _check_message(self, message: str) -> None:
        assert message.startswith(f"{self.path}: ")
        assert message.isprintable()
        assert len(message) < len(str(self.path)) + 400


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    return Target(tmp_path_factory.mktemp("hostile"))


def test_the_sound_file_is_let_in(target: Target) -> None:
    assert target.check(target.content)
    assert len(target.fields) > 120


def test_truncated_at_every_field(target: Target) -> None:
    ends = {at + shift for at, size in target.fields for shift in (-1, 0, 1, size)}
    ends |= {0, 1, 3, 4, 8, 23, 24, target.data_start, len(target.content) - 33}
    for end in ends:
        assert not target.check(target.content[:end]), end


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_truncated_anywhere(target: Target, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(target.content) - 32))
    assert not target.check(target.content[:end])


def test_every_number_replaced_by_wild_ones(target: Target) -> None:
    """Every count, length, type, dimension and offset in turn."""
    rng = np.random.default_rng(0)
    for at, size in target.fields:
        wild, code = (WILD_32, "<I") if size == 4 else (WILD_64, "<Q")
        for value in rng.choice(np.array(wild, np.uint64), 5, replace=False):
            content = bytearray(target.content)
            struct.pack_into(code, content, at, int(value))
            target.check(bytes(content))


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_numbers_changed_a_little(target: Target, data: st.DataObject) -> None:
    content = bytearray(target.content)
    for at, size in data.draw(st.lists(st.sampled_from(target.fields), min_size=1, max_size=4)):
        value = int.from_bytes(content[at : at + size], "little")
        value += data.draw(st.integers(-40, 40))
        content[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    target.check(bytes(content))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_flipped_bits(target: Target, data: st.DataObject) -> None:
    content = bytearray(target.content)
    last = 8 * target.data_start - 1
    for bit in data.draw(st.lists(st.integers(0, last), min_size=1, max_size=8)):
        content[bit // 8] ^= 1 << bit % 8
    target.check(bytes(content))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_pieces_cut_doubled_or_overwritten(target: Target, data: st.DataObject) -> None:
    content = target.content
    start = data.draw(st.integers(0, target.data_start))
    stop = data.draw(st.integers(start, min(start + 200, len(content))))
    filling = data.draw(
        st.one_of(
            st.just(b""),
            st.just(content[start:stop] * 2),
            st.binary(max_size=64),
            st.just(bytes(stop - start)),
            st.just(b"\xff" * (stop - start)),
        )
    )
    target.check(content[:start] + filling + content[stop:])


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=400))
@example(b"")
@example(bytes(400))
@example(b"\xff" * 400)
def test_noise_behind_a_good_start(target: Target, noise: bytes) -> None:
    target.check(target.content[:16] + noise)
    target.check(b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + noise)
    target.check(b"GGUF" + struct.pack("<IQQ", 3, 3, 0) + noise)


@pytest.mark.parametrize("filling", [b"\0", b"\1\0\0\0\0\0\0\0a", b"\xff"])
def test_a_long_header_full_of_nothing(target: Target, filling: bytes) -> None:
    """Strings by the hundred thousand cost their own bytes and little time."""
    body = filling * (300_000 // len(filling))
    count = len(body) // 8 if filling != b"\1\0\0\0\0\0\0\0a" else len(body) // 9
    key = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, count)
    target.check(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + body)
