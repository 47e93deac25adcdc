"""A small guide_formats.json, as if measured, for the tests of the page and of the order."""

from typing import Any

from benchmarks.task_scores import GROUPS

# Type: bits per weight, KL divergence, change of likelihood, right answers to each task of 100.
_FORMATS = {
    "f32": (32.0, 0.0, 0.0, 96),
    "f16": (16.0, 0.0, 0.0, 96),
    "bf16": (16.0, 2e-5, 1e-5, 96),
    "q8_0": (8.5, 3e-4, 2e-4, 95),
    "q4_0": (5.3, 2e-2, 1e-2, 80),
}


def formats() -> list[dict[str, Any]]:
    """Returns the figures of all formats, in the expected order."""
    return [
        {
            "type": type,
            "bytes": int(bits * 625_000),
            "bits_per_weight": bits,
            "n_positions": 5000,
            "kl": kl,
            "kl_se": kl / 20,
            "nll_change": change,
            "nll_change_se": change / 4,
            "top1_agreement": 1 - kl,
            "perplexity": 2.5 + change,
            "perplexity_se": 0.03,
            "prefill_tps": 5000.0,
            "decode_tps": 700.0,
            "tasks": [
                {"name": name, "title": f"Title of {name}", "right": right, "n": 100}
                for group in GROUPS
                for name in group.tasks
            ],
        }
        for type, (bits, kl, change, right) in _FORMATS.items()
    ]


def report() -> dict[str, Any]:
    """Returns the whole file."""
    return {
        "benchmark": "guide_formats",
        "machine": {
            "cpu": "A CPU",
            "commit": "0123456789ab",
            "versions": {"python": "3.11.9", "edgeqwen": "0.1.0", "numpy": "2.0.0"},
        },
        "model": {"n_weights": 5_000_000},
        "options": {
            "n": 100,
            "n_threads": 2,
            "n_prompt": 512,
            "n_generated": 64,
            "rounds": 7,
            "n_tokens": 5001,
        },
        "formats": formats(),
    }
