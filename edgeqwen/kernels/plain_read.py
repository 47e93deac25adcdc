"""How fast memory is read, at most: a kernel that loads vectors in order and adds them up."""

from edgeqwen.kernels.gemv import AHEAD, LINE_BYTES
from edgeqwen.simd.compile import kernel, operation, types
from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.ops import lanes, load_i32, store
from edgeqwen.simd.records import record, record_view

PLAIN_READ = record(
    "memory",  # address of the first chunk
    "n_bytes",  # of all chunks
    "chunk_bytes",
    "sums",  # int32 [chunks][lanes]: without a result, nothing would have to be read
)
plain_read_view = record_view(PLAIN_READ)


@operation
def ask_ahead(typing_context, isa, place):  # type: ignore[no-untyped-def]
    """Asks for 8 vectors that come later, as GEMV does: loads alone are a few percent slower."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        e = Emitter(builder, isa.isa)
        for ahead, level in AHEAD:
            for offset in range(0, 8 * 4 * isa.isa.lanes, LINE_BYTES):
                e.prefetch(values[1], ahead + offset, level)
        return context.get_dummy_value()

    return types.void(isa, types.int64), codegen


@kernel
def plain_read(isa, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Adds up the vectors of one chunk; bytes at its end that fill no vector are left out."""
    a = plain_read_view(args)
    width = 4 * lanes(isa)
    place = a.memory + chunk * a.chunk_bytes
    n_vectors = min(a.chunk_bytes, a.memory + a.n_bytes - place) // width
    # Independent sums, so that no load waits for an addition.
    s0 = load_i32(isa, place) - load_i32(isa, place)
    s1 = s2 = s3 = s4 = s5 = s6 = s7 = s0
    for _ in range(n_vectors // 8):
        ask_ahead(isa, place)
        s0 = s0 + load_i32(isa, place)
        s1 = s1 + load_i32(isa, place + width)
        s2 = s2 + load_i32(isa, place + 2 * width)
        s3 = s3 + load_i32(isa, place + 3 * width)
        s4 = s4 + load_i32(isa, place + 4 * width)
        s5 = s5 + load_i32(isa, place + 5 * width)
        s6 = s6 + load_i32(isa, place + 6 * width)
        s7 = s7 + load_i32(isa, place + 7 * width)
        place += 8 * width
    for _ in range(n_vectors % 8):
        s0 = s0 + load_i32(isa, place)
        place += width
    total = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
    store(a.sums + chunk * width, total)
