"""Looking bytes up in a table of 16, for which every instruction set has its own way.

Each function maps every byte i of <4*lanes x i8>, all of them below 16, to table[i].
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeqwen.simd.llvm_ir import ir

if TYPE_CHECKING:
    from edgeqwen.simd.emitter import Emitter, Value


def _table(e: "Emitter", table: Sequence[int], count: int) -> Any:
    return ir.Constant(ir.VectorType(ir.I8, count), [table[i % 16] for i in range(count)])


def _lookup_pshufb(e: "Emitter", table: Sequence[int], indices: "Value") -> "Value":
    # Works within 16 bytes each.
    count = indices.type.count
    name = {32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}[count]
    return e.call(name, e.i8v, _table(e, table, count), indices)


def _lookup_tbl(e: "Emitter", table: Sequence[int], indices: "Value") -> "Value":
    return e.call("llvm.aarch64.neon.tbl1.v16i8", e.i8v, _table(e, table, 16), indices)


def _lookup_select(e: "Emitter", table: Sequence[int], indices: "Value") -> "Value":
    # A tree: the lowest bit chooses between neighbours, the next between pairs, and so on.
    values: list[Value] = [e.constant(value, e.i8v) for value in table]
    for bit in (1, 2, 4, 8):
        is_set = e.b.icmp_unsigned("!=", e.and_bytes(indices, bit), e.constant(0, e.i8v))
        values = [
            e.b.select(is_set, odd, even)
            for even, odd in zip(values[::2], values[1::2], strict=True)
        ]
    return values[0]


LOOKUPS = {"pshufb": _lookup_pshufb, "tbl": _lookup_tbl, "select": _lookup_select}
