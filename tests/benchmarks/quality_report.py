"""A small guide_formats.json, as if measured, for the tests of the page and of the order."""

from typing import Any

from benchmarks.format_order import neighbours
from benchmarks.task_scores import GROUPS

# Type: bits per weight, KL divergence, change of likelihood, right answers to each task of 100,
# and speed against F16.
_FORMATS = {
    "f32": (32.0, 0.0, 0.0, 96, 0.5),
    "f16": (16.0, 0.0, 0.0, 96, 1.0),
    "bf16": (16.0, 2e-5, 1e-5, 96, 1.0),
    "q8_0": (8.5, 3e-4, 2e-4, 95, 1.5),
    "q4_0": (5.3, 2e-2, 1e-2, 80, 2.0),
}
# The machine is twice as slow in the second round, and everything waits in the last.
_ROUNDS = (1.0, 0.5, 0.1)


def answers(n_right: int) -> dict[str, str]:
    """Returns answers to 100 questions of each task, the first ones right."""
    return {name: "1" * n_right + "0" * (100 - n_right) for g in GROUPS for name in g.tasks}


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
            "prefill_tps": 2500.0 * speed,
            "prefill_tps_rounds": [5000.0 * speed * load for load in _ROUNDS],
            "decode_tps": 350.0 * speed,
            "decode_tps_rounds": [700.0 * speed * load for load in _ROUNDS],
            "answers": answers(right),
        }
        for type, (bits, kl, change, right, speed) in _FORMATS.items()
    ]


def report(figures: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Returns the whole file, for these formats or for the samples."""
    figures = formats() if figures is None else figures
    by_type = {f["type"]: f for f in figures}
    return {
        "benchmark": "guide_formats",
        "command": "python -m benchmarks.guide_formats -n 100",
        "machine": {
            "cpu": "A CPU",
            "load_average": 0.1,
            "commit": "0123456789ab",
            "versions": {"python": "3.11.9", "edgeqwen": "0.1.0", "numpy": "2.0.0"},
        },
        "model": {"n_weights": 5_000_000},
        "options": {
            "n": 100,
            "n_threads": 2,
            "n_prompt": 512,
            "n_generated": 64,
            "rounds": 3,
        },
        "n_tokens": 5001,
        "tasks": [{"name": name, "title": f"Title of {name}"} for name in answers(0)],
        "neighbours": [
            {
                "larger": larger,
                "smaller": smaller,
                "kl_difference": by_type[larger]["kl"] - by_type[smaller]["kl"],
                "kl_difference_se": 1e-4,
                "nll_difference": by_type[larger]["nll_change"] - by_type[smaller]["nll_change"],
                "nll_difference_se": 1e-4,
            }
            for larger, smaller in neighbours(figures)
        ],
        "formats": figures,
    }
