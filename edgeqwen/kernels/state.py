"""The state of a step: what changes from one step of a sequence to the next."""

from edgeqwen.simd.records import record, record_view

STATE = record(
    "n_tokens",  # tokens in this step
    "n_past",  # positions that the cache held before
    "tokens",  # address of int32 [n_tokens]
    "segments",  # address of int64: addresses of the segments of the sequence's KV cache
    "rotations",  # the same of the cosines and sines of their positions, where biases need them
)
state_view = record_view(STATE)
