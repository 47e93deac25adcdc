"""Kernels: what a step of the network is made of. Templates over formats and instruction sets.

Every kernel has the form ``f(token, args, chunk, worker)``: ``token`` steers code generation by
its type, ``args`` is the address of a record of int64 fields described in the kernel's file,
``chunk`` says which part of the work to do, ``worker`` which
thread does it (for scratch memory alone). Chunks are independent: any thread may do any chunk
in any order, and the result doesn't depend on who did it.
"""
