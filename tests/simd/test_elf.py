"""Object files put into memory without LLVM: the same results, and no crash on broken ones."""

import math
import struct

import numpy as np
import pytest

from edgeqwen.errors import CpuError
from edgeqwen.simd import machine_code
from edgeqwen.simd.compile import INT, kernel
from edgeqwen.simd.compiler import compile_kernel
from edgeqwen.simd.elf import UnsupportedObjectError, link
from edgeqwen.simd.executable import CodeMemory, is_supported
from edgeqwen.simd.isa import current_isa
from edgeqwen.simd.machine_code import MachineCode
from edgeqwen.simd.ops import peek_f32, poke_f32
from tests.isas import address
from tests.simd.kernels import exponentials

pytestmark = pytest.mark.skipif(
    not is_supported(), reason="on this system, LLVM puts machine code into memory"
)


def turned(place):  # type: ignore[no-untyped-def]
    """Calls the mathematical library, and needs constants of its own."""
    x = np.float64(peek_f32(place))
    poke_f32(place + 4, np.float32(math.sin(x) + 2.5 * math.cos(x)))


@pytest.fixture(scope="module")
def code() -> MachineCode:
    return compile_kernel(turned, True, [INT])


def place(at: int, n_bytes: int) -> slice:
    return slice(at, at + n_bytes)


def run(address_: int) -> float:
    numbers = np.array([0.75, 0], np.float32)
    kernel_ = kernel(turned)
    prototype = type(kernel_._get([INT]).call)
    result, exception = np.zeros(1, np.int64), np.zeros(1, np.int64)
    prototype(address_)(address(result), address(exception), address(numbers))
    return float(numbers[1])


def test_the_same_as_by_llvm(code: MachineCode) -> None:
    expected = np.float32(math.sin(0.75) + 2.5 * math.cos(0.75))
    linked = link(code.object_file, code.symbol, machine_code._external)
    assert run(linked) == run(machine_code._load_by_llvm(code)) == expected


def test_constants_of_every_width(code: MachineCode) -> None:
    """An exponential has a table of numbers, and vectors of them."""
    isa = current_isa()
    found = compile_kernel(exponentials.function, False, [isa, INT, INT, INT, INT])
    assert b".rodata" in found.object_file
    link(found.object_file, found.symbol, machine_code._external)


def test_llvm_takes_what_this_does_not(code: MachineCode, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise UnsupportedObjectError

    monkeypatch.setattr(machine_code, "link", refuse)
    assert run(machine_code.load(code)) == np.float32(math.sin(0.75) + 2.5 * math.cos(0.75))


def test_a_file_that_ends_early_is_refused(code: MachineCode) -> None:
    whole = code.object_file
    for end in [*range(200), *range(200, len(whole) - 64, 97)]:
        with pytest.raises(UnsupportedObjectError):
            link(whole[:end], code.symbol, machine_code._external)


def sections(object_file: bytes) -> range:
    """Returns where each section's description begins."""
    (start,) = struct.unpack_from("<Q", object_file, 0x28)
    size, count = struct.unpack_from("<HH", object_file, 0x3A)
    return range(start, start + size * count, size)


def kind_of(object_file: bytes, section: int) -> int:
    return int(struct.unpack_from("<I", object_file, section + 4)[0])


def test_no_file_of_random_faults_crashes(code: MachineCode) -> None:
    """What is refused or linked is never written outside of its memory."""
    rng = np.random.default_rng(0)
    whole = np.frombuffer(code.object_file, np.uint8)
    described = np.concatenate([np.arange(s, s + 64) for s in sections(code.object_file)])
    interesting = np.concatenate([np.arange(64), described])
    refused = 0
    for i in range(3000):
        damaged = whole.copy()
        where = interesting if i % 2 else np.arange(len(whole))
        # The size of a section may be a number that no memory holds, but not one that some does.
        damaged[rng.choice(where, rng.integers(1, 4))] = rng.integers(0, 256)
        try:
            link(damaged.tobytes(), code.symbol, machine_code._external)
        except (UnsupportedObjectError, OSError, OverflowError, MemoryError):
            refused += 1
    assert refused > 500


@pytest.mark.parametrize(
    ("what", "at", "value"),
    [
        ("another machine", 18, 183),
        ("32 bits", 4, 1),
        ("big-endian", 5, 2),
        ("a finished program", 16, 2),
    ],
)
def test_what_is_no_object_file_of_this_machine(
    code: MachineCode, what: str, at: int, value: int
) -> None:
    damaged = bytearray(code.object_file)
    damaged[at] = value
    with pytest.raises(UnsupportedObjectError, match="no object file for x86-64"):
        link(bytes(damaged), code.symbol, machine_code._external)


def test_relocations_are_checked(code: MachineCode) -> None:
    whole = code.object_file
    relocations = [s for s in sections(whole) if kind_of(whole, s) == 4]
    (offset,) = struct.unpack_from("<Q", whole, relocations[0] + 24)
    for at, value, message in (
        (offset, 1 << 40, "a relocation at byte"),
        (offset, -1 & (1 << 64) - 1, "a relocation at byte"),
        (offset + 8, 2, "relocation 2"),
    ):
        damaged = bytearray(whole)
        damaged[place(at, 8)] = struct.pack("<Q", value)
        with pytest.raises(UnsupportedObjectError, match=message):
            link(bytes(damaged), code.symbol, machine_code._external)


def test_a_function_that_nobody_has(code: MachineCode) -> None:
    def nobody(name: str) -> int:
        raise KeyError(name)

    with pytest.raises(UnsupportedObjectError, match=r"sincos|sin|cos"):
        link(code.object_file, code.symbol, nobody)
    with pytest.raises(UnsupportedObjectError, match="other"):
        link(code.object_file, "other", machine_code._external)


def test_sealed_memory_is_not_writable() -> None:
    memory = CodeMemory(100)
    memory.bytes[:3] = b"abc"
    memory.seal()
    with pytest.raises(TypeError, match="read-only"):
        memory.bytes[0] = 0


def test_a_system_without_executable_memory_is_told_of(
    code: MachineCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine_code, "link", forbid)
    monkeypatch.setattr(machine_code, "_load_by_llvm", forbid)
    with pytest.raises(CpuError, match=r"lets no memory be executed .*MemoryDenyWriteExecute=no"):
        machine_code.load(code)
