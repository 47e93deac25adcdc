"""A small performance.json, as if measured."""

from typing import Any

from benchmarks.scaling import CEILINGS

MACHINE: dict[str, Any] = {
    "cpu": "A CPU",
    "n_usable_cpus": 2,
    "isa": "avx2",
    "load_average": 0.1,
    "busy_cpus": 0.02,
    "n_threads": 2,
    "read_gb_per_s": 30.0,
    "integer_gmac_per_s": 400.0,
    "float_gmac_per_s": 100.0,
    "commit": "0123456789ab",
    "versions": {"python": "3.11.9", "edgeqwen": "0.1.0", "llama-cpp-python": "0.3.36"},
    "llama_cpp_features": "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | OPENMP = 1",
}


def record(**figures: Any) -> dict[str, Any]:
    """Returns a part's record of one model."""
    return {
        "machine": dict(MACHINE),
        "command": "python -m benchmarks.performance",
        "trial": False,
        "options": {"rounds": 5, "threads": 2},
        "model": {"shape": "0.5B", "type": "q4_0", "file": "m.gguf", "bytes": 350_000_000},
        **figures,
    }


def cell(depth: int, scale: float = 1.0, **fields: Any) -> dict[str, Any]:
    """Returns a cell of both runtimes; edgeqwen reads 1.5 times as fast and decodes 1.25 times."""
    return {
        "n_prompt": 512,
        "n_generate": 64,
        "depth": depth,
        "edgeqwen": {"prefill_tps": 450 * scale, "decode_tps": 75 * scale},
        "llama.cpp": {"prefill_tps": 300 * scale, "decode_tps": 60 * scale},
        "ratio": {"prefill_tps": 1.5, "decode_tps": 1.25},
        "roofline": {
            "decode": {"share": 0.876},
            "prefill": {"share": 0.403, "share_with_attention": 0.451},
        },
        **fields,
    }


def contestant(seconds: float, peak: int, private: int | None) -> dict[str, Any]:
    return {
        "first_token_s": seconds,
        "peak_rss_bytes": peak * 1_000_000,
        "private_bytes": None if private is None else private * 1_000_000,
    }


def _step(n_tokens: int, n_past: int, tps: float) -> dict[str, Any]:
    cores = (1, 2, 4, 8, 16)
    return {
        "n_tokens": n_tokens,
        "n_past": n_past,
        "measured_tps": {"1": tps, "2": 1.9 * tps},
        "predicted_tps": {name: {str(n): tps * n for n in cores} for name in CEILINGS},
        "error": {"1": 0.0, "2": 0.0526},
        "losses_s": {
            str(n): {"work": 0.6, "chunks": 0.1, "memory": 0.2, "barriers": 0.1} for n in cores
        },
    }


def report() -> dict[str, Any]:
    """Returns a report in which every part was measured."""
    scaling = record(
        memory_bytes_per_s={"1": 16e9, "2": 31e9},
        barrier_s={"1": 20e-9, "2": 250e-9},
        ceilings_bytes_per_s=CEILINGS,
        steps={"decode": _step(1, 64, 50.0), "prefill": _step(256, 0, 230.0)},
        emulations=[
            {"speeds": [1.0] * 8, "model_s": 2e-3, "executor_s": 2.02e-3, "even_s": 1.919e-3},
            {"speeds": [1.0, 0.4], "model_s": 1e-3, "executor_s": 1e-3, "even_s": 0.9e-3},
        ],
    )
    busy = record(
        n_generated=32,
        decode_tps={
            "idle": {"edgeqwen": 70.0, "llama.cpp": 60.0},
            "unpinned": {"edgeqwen": 42.0, "llama.cpp": 6.0},
            "pinned": {"edgeqwen": 35.0, "llama.cpp": 15.0},
        },
        of_idle={
            "unpinned": {"edgeqwen": 0.6, "llama.cpp": 0.1},
            "pinned": {"edgeqwen": 0.5, "llama.cpp": 0.25},
        },
    )
    start = record(
        contestants={
            "edgeqwen": contestant(1.1, 630, 520),
            "edgeqwen, packed file": contestant(0.4, 420, 60),
            "llama.cpp": contestant(1.2, 650, None),
        }
    )
    head = record(
        n_generated=64,
        screened={"decode_tps": 90.0},
        full={"decode_tps": 60.0},
        ratio={"decode_tps": 1.5},
    )
    parts = {
        "table": {
            "0.5B Q4_0": record(cells=[cell(0), cell(4096, 0.5)]),
            "1.5B Q4_K_M": record(cells=[cell(0, 0.25)]),
        },
        "threads": {
            "0.5B Q4_0": record(cells=[cell(0, n / 2, n_threads=n) for n in (1, 2)]),
        },
        "depth": {"0.5B Q4_0": record(cells=[cell(d) for d in (0, 512, 1024, 2048, 4096)])},
        "start": {"0.5B Q4_0": start},
        "busy": {"0.5B Q4_0": busy},
        "head": {"0.5B Q4_0": head},
        "scaling": {"0.5B Q4_0": scaling},
    }
    return {"benchmark": "performance", "parts": parts}
