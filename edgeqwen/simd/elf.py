"""Puts machine code into memory as a linker would, without LLVM, whose start takes 40 ms and 50 MB.

An object file is what the System V ABI calls relocatable: sections of code and constants, and
relocations, places in them that want an address. LLVM makes the kernels' for the large code model,
in which all of these are absolute addresses of 64 bits. Anything else is left to LLVM.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

from edgeqwen.simd.executable import CodeMemory

_HEADER = struct.Struct("<4s BBB 9x HH I QQQ I HHH HHH")
_MAGIC, _CLASS_64, _LITTLE_ENDIAN, _RELOCATABLE, _X86_64 = b"\x7fELF", 2, 1, 1, 62
_SECTION = struct.Struct("<II QQQQ II QQ")
_PROGBITS, _SYMTAB, _RELA, _NOBITS, _REL = 1, 2, 4, 8, 9
_WRITE, _ALLOC, _THREAD_LOCAL = 1, 2, 0x400
_SYMBOL = struct.Struct("<I BBH QQ")
_UNDEFINED, _RESERVED = 0, 0xFF00
_RELOCATION = struct.Struct("<QQq")
_ABSOLUTE_64 = 1


class UnsupportedObjectError(Exception):
    """An object file that only LLVM can link, or a broken one."""


class _Section(NamedTuple):
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


def link(object_file: bytes, symbol: str, external: Callable[[str], int]) -> int:
    """Puts an object file into executable memory and returns the address of its ``symbol``.

    ``external`` returns the address of a function that the file doesn't hold, or raises KeyError.
    Raises UnsupportedObjectError for what isn't as the module says, OSError where memory can't be
    made executable.
    """
    try:
        return _link(object_file, symbol, external)
    except (struct.error, IndexError, ValueError, KeyError) as error:
        raise UnsupportedObjectError(f"{symbol}: {error}") from error


def _link(object_file: bytes, symbol: str, external: Callable[[str], int]) -> int:
    sections = _sections(object_file)
    offsets, size = _places(sections)
    memory = CodeMemory(size)
    for i, offset in offsets.items():
        section = sections[i]
        if section.kind == _PROGBITS:
            memory.bytes[offset : offset + section.size] = _contents(object_file, section)
    (table,) = (i for i, section in enumerate(sections) if section.kind == _SYMTAB)
    symbols = _symbols(object_file, sections, table, offsets, memory.address)
    for section in sections:
        if section.kind == _RELA and section.info in offsets:
            target = sections[section.info]
            for place, info, addend in _RELOCATION.iter_unpack(_contents(object_file, section)):
                if info & 0xFFFFFFFF != _ABSOLUTE_64:
                    raise UnsupportedObjectError(f"{symbol}: relocation {info & 0xFFFFFFFF}")
                if place + 8 > target.size:
                    raise UnsupportedObjectError(f"{symbol}: a relocation at byte {place}")
                name, value = symbols[info >> 32]
                value = value if value >= 0 else external(name)
                at = offsets[section.info] + place
                memory.bytes[at : at + 8] = struct.pack("<Q", value + addend & (1 << 64) - 1)
    address = dict(symbols)[symbol]
    if not memory.address <= address < memory.address + size:
        raise UnsupportedObjectError(f"the object file has no function {symbol}")
    memory.seal()
    return address


def _sections(object_file: bytes) -> list[_Section]:
    header = _HEADER.unpack_from(object_file)
    kind = (*header[:3], header[4], header[5])
    if kind != (_MAGIC, _CLASS_64, _LITTLE_ENDIAN, _RELOCATABLE, _X86_64):
        raise UnsupportedObjectError(f"no object file for x86-64: {kind}")
    start, entry_bytes, count = header[9], header[14], header[15]
    sections = []
    for i in range(count):
        _, kind_, flags, _, offset, size, link_, info, alignment, _ = _SECTION.unpack_from(
            object_file, start + i * entry_bytes
        )
        sections.append(_Section(kind_, flags, offset, size, link_, info, max(alignment, 1)))
    return sections


def _places(sections: list[_Section]) -> tuple[dict[int, int], int]:
    """Returns where the sections lie that a process needs, and how much memory they take."""
    offsets, size = {}, 0
    for i, section in enumerate(sections):
        kind, flags = section.kind, section.flags
        if kind == _REL or (flags & _ALLOC and flags & (_WRITE | _THREAD_LOCAL)):
            raise UnsupportedObjectError(f"section {i} is of kind {kind}, flags {flags:x}")
        # What a debugger needs to unwind the stack is left out.
        if flags & _ALLOC and kind in (_PROGBITS, _NOBITS):
            size = -(-size // section.alignment) * section.alignment
            offsets[i] = size
            size += section.size
    return offsets, size


def _contents(object_file: bytes, section: _Section) -> bytes:
    found = object_file[section.offset : section.offset + section.size]
    if len(found) != section.size:
        raise UnsupportedObjectError(f"a section ends at byte {section.offset + section.size}")
    return found


def _symbols(
    object_file: bytes, sections: list[_Section], table: int, offsets: dict[int, int], base: int
) -> list[tuple[str, int]]:
    """Returns the symbols of a table with their addresses, -1 where they are defined elsewhere."""
    names = _contents(object_file, sections[sections[table].link])
    found = []
    for name, _, _, section, value, _ in _SYMBOL.iter_unpack(
        _contents(object_file, sections[table])
    ):
        address = -1
        if section in offsets:
            address = base + offsets[section] + value
        elif section != _UNDEFINED and section < _RESERVED:
            address = 0  # of a section that no process needs
        found.append((names[name : names.index(b"\0", name)].decode(), address))
    return found
