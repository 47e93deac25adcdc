"""Sums of squares of activations, column by column: what an importance matrix is made of.

They are read as float32, before a format rounds them to int8: beside a large activation, rounding
makes a block's small ones zero, and their weights would seem to matter to nobody.
"""

from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import exact_kernel, operation, types
from edgeqwen.simd.emitter import Emitter
from edgeqwen.simd.ops import lanes
from edgeqwen.simd.records import record, record_view

# A chunk's columns: no two chunks add to one sum, and a chunk adds up its tokens in their order.
# Rows lie far apart, so they are read some pages at a time.
CHUNK_COLUMNS = 1024

OBSERVED = record(
    "sums",  # address of float64 [columns of all inputs]; it changes from step to step, as STATE
)
observed_view = record_view(OBSERVED)

OBSERVE = record(
    "state",
    "observed",  # address of OBSERVED
    "first",  # which of the sums is that of column 0
    "x",  # float32 [n_tokens][stride / 4]
    "stride",
    "n_columns",  # a multiple of 32
)
observe_view = record_view(OBSERVE)


@operation
def add_squares(typing_context, isa, x, sums):  # type: ignore[no-untyped-def]
    """Adds the squares of a vector of float32 at ``x`` to as many float64 at ``sums``."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        _, x, sums = values
        e = Emitter(builder, isa.isa)
        # A vector type like the emitter's, of what Numba has for float64, which holds the square
        # of a float32 exactly.
        f64v = type(e.f32v)(context.get_value_type(types.float64), isa.isa.lanes)
        wide = builder.fpext(e.load(e.f32v, x), f64v)
        e.store(builder.fadd(e.load(f64v, sums), builder.fmul(wide, wide)), sums)
        return context.get_dummy_value()

    return types.void(isa, types.int64, types.int64), codegen


@exact_kernel
def observe(isa, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Adds the squares of some columns of all tokens to their sums."""
    a = observe_view(args)
    first = chunk * CHUNK_COLUMNS
    n_columns = min(CHUNK_COLUMNS, a.n_columns - first)
    sums = observed_view(a.observed).sums + 8 * (a.first + first)
    x = a.x + 4 * first
    for _ in range(state_view(a.state).n_tokens):
        for i in range(0, n_columns, lanes(isa)):
            add_squares(isa, x + 4 * i, sums + 8 * i)
        x += a.stride
