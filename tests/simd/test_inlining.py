"""Functions that are written into kernels keep their meaning, whatever LLVM makes of addresses."""

from typing import Any

import numpy as np
import pytest

from edgeqwen.simd.compile import INT
from tests.isas import address
from tests.simd import inlining
from tests.simd.inlining import Doubling, Plain, mix


def test_a_branching_function_of_addresses_in_a_loop() -> None:
    source = np.random.default_rng(0).integers(0, 256, 12, dtype=np.uint8)
    target = np.zeros(8, np.uint8)
    mix(address(source), address(target))
    expected = [*(source[:4] & 63), *((source[8:] & 15) | (source[:4] >> 6) << 4)]
    assert target.tolist() == expected


def test_they_are_as_exact_as_their_caller() -> None:
    """Reassociated, the first number would leave no trace."""
    source, target = np.array([2.0**24, 1], np.float32), np.zeros(1, np.float32)
    inlining.cancel_exactly(address(source), address(target))
    assert target[0] == 0
    inlining.cancel(address(source), address(target))
    assert target[0] == 1


@pytest.mark.parametrize(("token", "once", "twice"), [(Plain(), 8, 9), (Doubling(1), 14, 28)])
def test_a_token_s_own_method_comes_first(token: Plain | Doubling, once: int, twice: int) -> None:
    target = np.zeros(1, np.int64)
    inlining.write_changed(token, address(target), 7)
    assert target[0] == once
    inlining.write_changed_again(token, address(target), 7)
    assert target[0] == twice


def test_kernels_share_what_was_compiled_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeqwen.simd import compiler

    compiled = []
    real = compiler._part

    def counting(function: Any, exact: bool, arguments: Any) -> Any:
        compiled.append((function, exact, arguments))
        return real(function, exact, arguments)

    monkeypatch.setattr(compiler, "_part", counting)
    for kernel in (inlining.write_changed, inlining.write_changed_again):
        compiler.compile_kernel(kernel.function, kernel.exact, [Doubling(2), INT, INT])
    assert [function for function, _, _ in compiled] == [Doubling.changed]


def test_a_method_that_a_token_must_have_is_missed_by_name() -> None:
    with pytest.raises(Exception, match="'Plain' object has no attribute 'tripled'"):
        inlining.write_tripled(Plain(), 0, 7)
