"""Runs kernels as the tape does: arguments in a record, chunks one by one, in any order."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeqwen.kernels.state import STATE
from tests.isas import address


def bits(x: float) -> int:
    """Returns the bits of a float32, as argument records hold them."""
    return int(np.float32(x).view(np.uint32))


def step_state(
    n_tokens: int,
    n_past: int = 0,
    *,
    tokens: np.ndarray | None = None,
    segments: int = 0,
    rotations: int = 0,
) -> np.ndarray:
    """Returns the state of a step."""
    state = np.zeros(1, STATE)
    state["n_tokens"], state["n_past"], state["segments"] = n_tokens, n_past, segments
    state["rotations"] = rotations
    state["tokens"] = 0 if tokens is None else address(tokens)
    return state


def run(
    kernel: Any, token: Any, layout: np.dtype[Any], n_chunks: int, arguments: Mapping[str, Any]
) -> None:
    """Runs all chunks, in an order that no thread would choose, on two workers.

    Arrays among the arguments stand for their addresses.
    """
    record = np.zeros(1, layout)
    assert set(arguments) == set(layout.names or ())
    for name, value in arguments.items():
        record[name] = address(value) if isinstance(value, np.ndarray) else value
    for chunk in np.random.default_rng(n_chunks).permutation(n_chunks):
        kernel(token, address(record), int(chunk), int(chunk) % 2)
