"""Warming up compiles all that a model needs: afterwards, nothing is compiled any more."""

from pathlib import Path
from typing import Any

from edgeqwen.formats.screened import LEAST_ROWS
from edgeqwen.simd.executable import is_supported
from tests.gguf_samples import write_tiny_gguf
from tests.simd.processes import answer, start

# Everything that a user may ask of a model, in a process that may find kernels but not make any.
PROGRAM = """
import json, sys
import edgeqwen
from edgeqwen.simd.compile import compilations

with edgeqwen.load(sys.argv[1], n_threads=2) as model:
    "".join(model.generate("hello world", max_tokens=3, seed=1))
    "".join(model.generate("hello", max_tokens=3, temperature=0, repetition_penalty=1.2))
    "".join(model.chat().send("hello " * 40, max_tokens=2, top_k=0))
    model.logits([1, 2, 3])
print(json.dumps([compilations, sorted({"numba", "llvmlite.binding"} & {*sys.modules})]))
"""
WARMUP = """
import json, sys
from edgeqwen.warmup import warmup
from edgeqwen.simd.compile import compilations

warmup(sys.argv[1], n_threads=2)
print(json.dumps(len(compilations)))
"""


LOAD = """
import json, sys
import edgeqwen
from edgeqwen.simd.compile import compilations

kernels = []
with edgeqwen.load(sys.argv[1], n_threads=2, compiling=lambda *step: kernels.append(step)) as model:
    n_compiled = len(compilations)
    "".join(model.generate("hello world", max_tokens=4, seed=1))
print(json.dumps([n_compiled, kernels[-1], compilations[n_compiled:]]))
"""
SIZES = {"n_heads": 2, "n_kv_heads": 1, "head_dim": 32}


def run(program: str, model: Path) -> Any:
    """Runs a program with a cache of kernels beside the model."""
    argument = f"import sys; sys.argv[1:] = [{str(model)!r}]"
    cache = {"EDGEQWEN_CACHE_DIR": str(model.parent / "cache")}
    return answer(start(argument + program, environment=cache))


def test_loading_compiles_what_generating_needs(tmp_path: Path) -> None:
    """And tells how far it is. The head is large enough to be screened."""
    model = tmp_path / "model.gguf"
    write_tiny_gguf(model, types={"token_embd": "Q8_0"}, vocab_size=LEAST_ROWS, **SIZES)
    n_compiled, (done, total), later = run(LOAD, model)
    assert n_compiled > 20
    assert done == total >= n_compiled
    assert later == []


def test_nothing_is_compiled_afterwards(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    types = {"token_embd": "Q8_0", "blk.0.ffn_up": "Q4_0", "blk.0.ffn_gate": "Q4_0"}
    write_tiny_gguf(model, types=types, vocab_size=400, **SIZES)
    assert run(WARMUP, model) > 20
    # Where machine code is put into memory without LLVM, not even that is loaded.
    assert run(PROGRAM, model) == [[], [] if is_supported() else ["llvmlite.binding"]]
