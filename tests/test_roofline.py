"""The roofline: what is measured of the machine, and which share of it speeds are."""

import json

import numpy as np
import pytest

from edgeqwen import roofline as module
from edgeqwen.errors import OptionError
from edgeqwen.model.work import Work
from edgeqwen.roofline import Limits, roofline
from edgeqwen.simd.isa import current_isa

WORK = Work(weight_bytes=300, integer_macs=1000, float_macs=200, cache_bytes=4, attention_macs=10)
LIMITS = {"read_bytes_per_s": 10_000.0, "integer_macs_per_s": 40_000.0, "float_macs_per_s": 8_000.0}


def speeds(prefill: float | None, decode: float | None) -> dict[str, object]:
    return {"n_prompt": 9, "n_generate": 5, "prefill_tps": prefill, "decode_tps": decode}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", {"integer": 10, "float": 10})
    monkeypatch.setattr(module, "_SETTLE_S", 0.0)


def test_decode_reads_weights_and_the_cache_up_to_each_token() -> None:
    # The five tokens behind 20 others see 21 to 25 positions.
    found = roofline(WORK, LIMITS, speeds(None, 10.0), depth=20)
    assert found == {
        "decode": {
            "weight_bytes": 300,
            "cache_bytes": 23 * 4,
            "bytes_per_s": 3920.0,
            "share": pytest.approx(0.392),
        }
    }


def test_prefill_multiplies_in_matrices_and_in_attention() -> None:
    # The nine tokens see 1 to 9 positions; products take 1/40 + 1/40 s, attention 1/160 s.
    found = roofline(WORK, LIMITS, speeds(10.0, None), depth=0)
    assert found == {
        "prefill": {
            "integer_macs": 1000,
            "float_macs": 200,
            "attention_macs": 50.0,
            "macs_per_s": 12_000.0,
            "share": pytest.approx(0.5),
            "share_with_attention": pytest.approx(0.5625),
        }
    }


@pytest.mark.parametrize("n_threads", [1, 3])
def test_limits_are_medians_of_samples(small: None, n_threads: int) -> None:
    with Limits(n_threads, read_bytes=9_000_000) as limits:
        assert limits.isa == current_isa()
        for _ in range(3):
            limits.measure()
        found = limits.figures()
    assert set(found) == {"read_bytes_per_s", "integer_macs_per_s", "float_macs_per_s"}
    for name, value in found.items():
        assert sorted(limits.samples[name])[1] == value > 1e6
    assert json.loads(json.dumps(limits.samples)) == limits.samples


def test_all_memory_is_read_and_all_products_are_done(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_CHUNK_BYTES", 1 << 20)
    with Limits(2, read_bytes=5 << 19) as limits:
        sums, *products = limits._kept
        # Every byte is 1; the last of the three chunks is half as long.
        expected = [0x01010101 * n // (4 * limits.isa.lanes) for n in (1 << 20, 1 << 20, 1 << 19)]
        assert sums.view(np.uint32).T.tolist() == [[n % 2**32 for n in expected]] * limits.isa.lanes
        # Once as it was made: ten steps of 32 products of 1 times 1.
        assert (products[2] == 10 * 32).all()
        assert len(products[2]) == 2 * module.CHUNKS_PER_THREAD
        limits.measure()
        assert (products[2] == 2 * 10 * 32).all()


def test_memory_is_at_most_an_eighth_of_the_machines(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "physical_memory", lambda: 8 << 20)
    with Limits(1, read_bytes=1 << 40) as limits:
        assert limits._tapes["read_bytes_per_s"][1] == 1 << 20


def test_a_senseless_number_of_threads_is_refused() -> None:
    with pytest.raises(OptionError, match="n_threads is 0"):
        Limits(0)
