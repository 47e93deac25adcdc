"""Argument records: kernels read named int64 fields at an address; Python fills a numpy record."""

from typing import Any

import numpy as np

from edgeqwen.simd.compile import operation, types


def record(*fields: str) -> np.dtype[Any]:
    """Returns the dtype of a record of int64 fields (addresses, counts, offsets in bytes)."""
    return np.dtype([(name, np.int64) for name in fields])


def record_view(dtype: np.dtype[Any]) -> Any:
    """Makes the operation ``f(address) -> record``, whose fields a kernel reads by name."""

    @operation
    def view(typing_context, address):  # type: ignore[no-untyped-def]
        type_ = types.from_dtype(dtype)

        def codegen(context, builder, sig, values):  # type: ignore[no-untyped-def]
            return builder.inttoptr(values[0], context.get_value_type(type_))

        return type_(types.int64), codegen

    return view
