"""Vectors in Numba: instruction sets, vector types, operations, atomics, the kernel decorator."""
