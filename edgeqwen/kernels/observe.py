"""Sums of squares: how large the inputs of a matrix product are, column by column.

They are the activations before they are rounded for a panel: what a file of importances holds must
not depend on the type of the weights that it was measured with.
"""

from numba import float64, types
from numba.extending import intrinsic

from edgeqwen.kernels.state import state_view
from edgeqwen.simd.compile import kernel
from edgeqwen.simd.ops import peek_f32
from edgeqwen.simd.records import record, record_view

OBSERVE = record(
    "state",
    "x",  # float32 [n_tokens][stride / 4], of which the first n_columns count
    "stride",  # bytes from one token to the next
    "n_columns",
    "columns_per_chunk",
    "sums",  # float64 [n_columns]
)
observe_view = record_view(OBSERVE)


@intrinsic
def _add_f64(typing_context, address, value):  # type: ignore[no-untyped-def]
    """Adds to the float64 at an address, which is a multiple of 8."""

    def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
        address, value = values
        place = builder.inttoptr(address, value.type.as_pointer())
        builder.store(builder.fadd(builder.load(place), value), place)
        return context.get_dummy_value()

    return types.void(types.int64, types.float64), codegen


@kernel
def observe(token, args, chunk, worker):  # type: ignore[no-untyped-def]
    """Adds x**2 of all tokens of the step to the sums of some columns, token after token.

    A square of a float32 is exact in float64, and a column belongs to one chunk: the sums are the
    same to the bit on any number of threads.
    """
    a = observe_view(args)
    first = chunk * a.columns_per_chunk
    end = min(first + a.columns_per_chunk, a.n_columns)
    for i in range(state_view(a.state).n_tokens):
        x = a.x + i * a.stride
        for column in range(first, end):
            value = float64(peek_f32(x + 4 * column))
            _add_f64(a.sums + 8 * column, value * value)
