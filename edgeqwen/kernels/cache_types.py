"""How keys and values are kept in the KV cache: the types, their sizes, and how they are read.

The cache holds elements in *rows* of 32 that lie side by side: of K, 32 positions of one dimension,
of V, 32 dimensions of one position. The quantized types have a float16 scale for 32 dimensions of
one position and KV head, which lies apart from the codes (``attention_types`` tells where):

- ``q8_0``: int8 codes in [-127, 127]; x = scale * code.
- ``q4_0``: 4-bit codes in [-8, 7], two's complement. A byte holds dimension d in its lower half and
  d + 16 in its upper, of 32 dimensions.

What isn't finite gets a scale that isn't: no NaN and no infinity becomes a number.

Keys are R_p(W x + b), where R_p turns by the angles of position p. Biases b of real checkpoints
are hundreds of times larger than the rest, in some dimensions of some layers. They are known, so
types that they would harm keep R_p(W x + b - b'), where b' is b in the pairs of dimensions that
rotate together and whose bias is larger than ``bias_factor`` times the standard deviation of W x;
attention adds q R_p b' to the scores.
"""

from dataclasses import dataclass

from edgeqwen.simd.emitter import Emitter, Value
from edgeqwen.simd.llvm_ir import ir


@dataclass(frozen=True, slots=True)
class CacheType:
    """One type: the bytes of 32 elements and of their scale, the range of codes, the biases."""

    name: str
    row_bytes: int
    scale_bytes: int = 0
    lowest: int = 0
    highest: int = 0
    bias_factor: float | None = None

    @property
    def keeps_biases_apart(self) -> bool:
        return self.bias_factor is not None

    @property
    def bytes_of_32(self) -> int:
        """Bytes of 32 dimensions of one position and KV head."""
        return self.row_bytes + self.scale_bytes


_TYPES = (
    CacheType("f16", 64),
    CacheType("bf16", 64, bias_factor=8),
    CacheType("q8_0", 32, 2, -127, 127, bias_factor=8),
    CacheType("q4_0", 16, 2, -8, 7, bias_factor=2),
    CacheType("f32", 128),
)
CACHE_TYPES = {cache_type.name: cache_type for cache_type in _TYPES}


def load_row(e: Emitter, cache_type: str, address: Value, offset: int) -> Value:
    """Emits a load of ``lanes`` elements of a row as float32, without their scale (not q4_0)."""
    if cache_type == "f32":
        return e.load(e.f32v, address, offset)
    if cache_type == "f16":
        return e.f16_to_f32(e.load(e.f16v, address, offset))
    if cache_type == "bf16":
        return e.bf16_to_f32(e.load(e.half_bits, address, offset))
    return e.bytes_to_f32(load_bytes(e, address, offset), signed=True)


def load_bytes(e: Emitter, address: Value, offset: int) -> Value:
    """Emits a load of <lanes x i8>."""
    return e.load(ir.VectorType(ir.I8, e.isa.lanes), address, offset)


def gather_elements(e: Emitter, cache_type: str, address: Value, stride: int) -> list[Value]:
    """Emits loads of ``lanes`` elements ``stride`` bytes apart as float32, without their scale.

    Of 4-bit codes, it is two vectors: lower and upper halves of the bytes.
    """
    kinds = {"f32": ir.F32, "f16": ir.I16, "bf16": ir.I16}
    kind = kinds.get(cache_type, ir.I8)
    x = ir.Constant(ir.VectorType(kind, e.isa.lanes), ir.Undefined)
    for lane in range(e.isa.lanes):
        x = e.b.insert_element(x, e.load(kind, address, stride * lane), ir.I32(lane))
    if cache_type == "f32":
        return [x]
    if cache_type == "f16":
        # As integers: LLVM converts a single half by a function of its own where the CPU can't.
        return [e.f16_to_f32(e.b.bitcast(x, e.f16v))]
    if cache_type == "bf16":
        return [e.bf16_to_f32(x)]
    return low_and_high(e, x) if cache_type == "q4_0" else [e.bytes_to_f32(x, signed=True)]


def low_and_high(e: Emitter, bytes_: Value) -> list[Value]:
    """Emits the two signed halves of <lanes x i8> as float32."""
    wide = e.b.sext(bytes_, e.i32v)
    low = e.b.ashr(e.b.shl(wide, e.constant(28, e.i32v)), e.constant(28, e.i32v))
    high = e.b.ashr(wide, e.constant(4, e.i32v))
    return [e.i32_to_f32(low), e.i32_to_f32(high)]


def half_at(e: Emitter, bytes_: Value, shift: Value) -> Value:
    """Emits one signed half of <lanes x i8> as float32: ``shift`` (int64) is 0 or 4 bits."""
    left = e.b.sub(ir.I32(28), e.b.trunc(shift, ir.I32))
    wide = e.b.shl(e.b.zext(bytes_, e.i32v), e.splat(left, e.i32v))
    return e.i32_to_f32(e.b.ashr(wide, e.constant(28, e.i32v)))


def quantize(e: Emitter, cache_type: CacheType, source: Value, scale: Value) -> list[Value]:
    """Emits the quantization of 32 float32 at ``source``; stores their scale.

    Returns the codes, some <lanes x i32> in order. The scale is the largest magnitude by 127, or
    the number of largest magnitude by -8, rounded to float16; the codes are by what it was rounded
    to. A scale of zero gives codes of zero.
    """
    b, n = e.b, e.isa.lanes
    x = [e.load(e.f32v, source, 4 * i) for i in range(0, 32, n)]
    if cache_type.lowest == -cache_type.highest:
        largest = _largest(e, [e.unary("fabs", v) for v in x])
        wanted = b.fdiv(largest, e.f32(cache_type.highest))
    else:
        top, bottom = _largest(e, x), _largest(e, [b.fsub(e.f32(-0.0), v) for v in x])
        minus = b.fsub(e.f32(-0.0), bottom)
        largest = b.select(b.fcmp_ordered(">", top, bottom), top, minus)
        wanted = b.fdiv(largest, e.f32(cache_type.lowest))
    # Zero times what isn't finite is NaN; maxima may lose that.
    check = b.fmul(x[0], e.f32(0))
    for v in x[1:]:
        check = b.fadd(check, b.fmul(v, e.f32(0)))
    wanted = b.fadd(wanted, e.splat(e.reduce(check, b.fadd), e.f32v))
    half = e.f32_to_f16(wanted)
    e.store(b.extract_element(half, ir.I32(0)), scale)
    rounded = e.f16_to_f32(half)
    inverse = b.fdiv(e.f32(1), rounded)
    inverse = b.select(b.fcmp_ordered("!=", rounded, e.f32(0)), inverse, e.f32(0))
    codes = []
    for v in x:
        code = e.unary("rint", b.fmul(v, inverse))
        # Of NaN, ``max`` takes the other.
        code = e.min(e.max(code, e.f32(cache_type.lowest)), e.f32(cache_type.highest))
        codes.append(b.fptosi(code, e.i32v))
    return codes


def packed(e: Emitter, cache_type: CacheType, codes: list[Value]) -> list[Value]:
    """Emits the codes of 32 dimensions as bytes in order: some <lanes x i8>."""
    if cache_type.row_bytes == 16:
        half = len(codes) // 2
        mask, four = e.constant(15, e.i32v), e.constant(4, e.i32v)
        codes = [
            e.b.or_(e.b.and_(low, mask), e.b.shl(high, four))
            for low, high in zip(codes[:half], codes[half:], strict=True)
        ]
    return [e.i32_to_bytes(code) for code in codes]


def _largest(e: Emitter, x: list[Value]) -> Value:
    """Emits the largest of all lanes of some vectors, in every lane."""
    largest = x[0]
    for v in x[1:]:
        largest = e.max(largest, v)
    return e.splat(e.reduce(largest, e.max), e.f32v)
