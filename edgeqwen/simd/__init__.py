"""Vectors in Numba: instruction sets, vector types and operations, atomics, the kernel decorator."""
