"""The dot product of int8 values, the one operation for which every instruction set has its own.

Each function sums weight * activation over groups of four bytes, for a list of weight and
activation vectors <4*lanes x i8>, onto <lanes x i32>. ``Emitter.dot`` tells the contract.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeqwen.simd.llvm_ir import ir

if TYPE_CHECKING:
    from edgeqwen.simd.emitter import Emitter, Value


def _dot_vpdpbusd(
    e: "Emitter",
    total: "Value",
    weights: Sequence["Value"],
    activations: Sequence["Value"],
    limit: int,
    signed: bool,
) -> "Value":
    name = f"llvm.x86.avx512.vpdpbusd.{32 * e.isa.lanes}"
    for w, a in zip(weights, activations, strict=True):
        # As words of four bytes: LLVM before 21 knows it no other way, and later ones do, too.
        total = e.call(name, e.i32v, total, e.b.bitcast(w, e.i32v), e.b.bitcast(a, e.i32v))
    return total


def _dot_vpmaddubsw(
    e: "Emitter",
    total: "Value",
    weights: Sequence["Value"],
    activations: Sequence["Value"],
    limit: int,
    signed: bool,
) -> "Value":
    # Products are summed in int16 as long as no sum can exceed its range, then widened.
    room = max(1, 32767 // (2 * 127 * limit))
    ones = e.constant(1, e.i16v)
    for i in range(0, len(weights), room):
        sums = None
        for w, a in zip(weights[i : i + room], activations[i : i + room], strict=True):
            if signed:  # |w| * (a with the sign of w)
                a = e.call("llvm.x86.avx2.psign.b", e.i8v, a, w)
                w = e.call(f"llvm.abs.v{w.type.count}i8", w.type, w, ir.IntType(1)(0))
            pairs = e.call("llvm.x86.avx2.pmadd.ub.sw", e.i16v, w, a)
            sums = pairs if sums is None else e.b.add(sums, pairs)
        total = e.b.add(total, e.call("llvm.x86.avx2.pmadd.wd", e.i32v, sums, ones))
    return total


def _dot_sdot(
    e: "Emitter",
    total: "Value",
    weights: Sequence["Value"],
    activations: Sequence["Value"],
    limit: int,
    signed: bool,
) -> "Value":
    for w, a in zip(weights, activations, strict=True):
        total = e.call("llvm.aarch64.neon.sdot.v4i32.v16i8", e.i32v, total, w, a)
    return total


def _dot_smlal(
    e: "Emitter",
    total: "Value",
    weights: Sequence["Value"],
    activations: Sequence["Value"],
    limit: int,
    signed: bool,
) -> "Value":
    # Each half of a vector has int16 sums of its own, one for every weight. As long as none can
    # exceed its range, products are added to them (smlal); then pairs go into int32 (sadalp), two
    # for each row, which are added up in the end (addp).
    b, products = e.b, ir.VectorType(ir.I16, 8)
    room = max(1, 32767 // (127 * limit))
    halves: list[Value] = []
    for side in range(2):
        order = ir.Constant(ir.VectorType(ir.I32, 8), [8 * side + i for i in range(8)])
        pairs = None
        for i in range(0, len(weights), room):
            sums = None
            for w, a in zip(weights[i : i + room], activations[i : i + room], strict=True):
                w, a = (b.sext(b.shuffle_vector(x, x, order), products) for x in (w, a))
                sums = b.mul(w, a) if sums is None else b.add(sums, b.mul(w, a))
            added = e.call("llvm.aarch64.neon.saddlp.v4i32.v8i16", e.i32v, sums)
            pairs = added if pairs is None else b.add(pairs, added)
        halves.append(pairs)
    return b.add(total, e.call("llvm.aarch64.neon.addp.v4i32", e.i32v, *halves))


def _dot_widen(
    e: "Emitter",
    total: "Value",
    weights: Sequence["Value"],
    activations: Sequence["Value"],
    limit: int,
    signed: bool,
) -> "Value":
    b = e.b
    wide = ir.VectorType(ir.I32, 4 * e.isa.lanes)
    products = ir.Constant(wide, None)
    for w, a in zip(weights, activations, strict=True):
        product = b.mul(b.sext(w, wide) if signed else b.zext(w, wide), b.sext(a, wide))
        products = b.add(products, product)
    for k in range(4):
        total = b.add(total, e.every_fourth(products, k))
    return total


DOTS = {
    "vpdpbusd": _dot_vpdpbusd,
    "vpmaddubsw": _dot_vpmaddubsw,
    "sdot": _dot_sdot,
    "smlal": _dot_smlal,
    "widen": _dot_widen,
}
