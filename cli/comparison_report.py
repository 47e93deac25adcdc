"""The comparison of two files, for people and for programs."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeqwen.cli.contents import as_fields
from edgeqwen.cli.terminal import clean_line, size_text
from edgeqwen.gguf_file import GgufFile
from edgeqwen.likelihood import Estimate

if TYPE_CHECKING:
    from edgeqwen import Generation
    from edgeqwen.comparison import Comparison

_SPEEDS = ("prefill_tps", "decode_tps", "prefill_tps_samples", "decode_tps_samples")


def file_facts(path: Path) -> dict[str, Any]:
    """Returns a model's path, size in bytes and bits per weight; raises what opening it raises."""
    with GgufFile.open(path) as file:
        fields = as_fields(file, None, None)
    return {key: fields[key] for key in ("path", "file_bytes", "bits_per_weight")}


@dataclass(slots=True)
class Report:
    """What was found of A and B, as far as it was measured.

    ``files``: the facts of both; ``speeds``: theirs, as ``edgeqwen.cli.measure.speeds`` gives them
    for ``n_prompt`` and ``n_generate`` tokens; ``answers``: finished generations.
    """

    files: tuple[dict[str, Any], dict[str, Any]]
    comparison: "Comparison"
    speeds: list[dict[str, Any]] = field(default_factory=list)
    n_prompt: int = 0
    n_generate: int = 0
    n_threads: int = 0
    prompt: str = ""
    answers: "list[Generation]" = field(default_factory=list)

    def fields(self) -> dict[str, Any]:
        """Returns all figures; null where one is unknown or more than a float holds."""
        found = self.comparison
        flat: dict[str, Any] = {}
        for item in dataclasses.fields(found):
            flat |= _flat(item.name, getattr(found, item.name))
        flat |= _flat("perplexity_ratio", found.perplexity_ratio)
        sides = []
        for i, facts in enumerate(self.files):
            side = "ab"[i]
            nll = {f"mean_nll{end}": flat.pop(f"nll_{side}{end}") for end in ("", "_se")}
            perplexity = _flat("perplexity", getattr(found, f"perplexity_{side}"))
            speeds = self.speeds[i] if self.speeds else dict.fromkeys(_SPEEDS)
            answer = _answer(self.answers[i]) if self.answers else None
            sides.append({**facts, **perplexity, **nll, **speeds, "answer": answer})
        return {
            "a": sides[0],
            "b": sides[1],
            **flat,
            "n_prompt": self.n_prompt,
            "n_generate": self.n_generate,
            "n_threads": self.n_threads,
            "prompt": self.prompt,
            "n_same_tokens": n_same_tokens(self.answers) if self.answers else None,
        }

    def comparison_lines(self) -> str:
        """Returns what the text told of both, for people."""
        found = self.comparison
        lines = [
            (
                name,
                f"{clean_line(facts['path'])}: {size_text(facts['file_bytes'])}, "
                f"{facts['bits_per_weight']:.2f} bits per weight",
            )
            for name, facts in zip("AB", self.files, strict=True)
        ]
        lines += [
            (
                "tokens",
                f"{found.n_tokens}, of which {found.n_scored} were scored; windows of "
                f"{found.context}, stride {found.stride}; vocabulary {found.n_vocab}",
            ),
            ("", ""),
            ("KL divergence", f"{_shown(found.kl)} nats per token, of B from A"),
            (
                "  over the tokens",
                f"median {found.kl_median:.3g}, 90% up to {found.kl_p90:.3g}, 99% "
                f"{found.kl_p99:.3g}, 99.9% {found.kl_p99_9:.3g}, maximum {found.kl_max:.3g}",
            ),
            ("same first choice", f"{_percent(found.same_top)} of the tokens"),
            ("perplexity of A", _shown(found.perplexity_a)),
            ("perplexity of B", _shown(found.perplexity_b)),
            (
                "  B / A",
                f"{_shown(found.perplexity_ratio)}, its logarithm {_shown(found.nll_change)}",
            ),
            (
                "change of p",
                f"{_percent(found.p_change, sign='+')}, RMS {_percent(found.p_change_rms)}: "
                "probability of the text's own tokens, B less A",
            ),
        ]
        if found.nll_correlation is not None:
            lines.append(("correlation", f"{found.nll_correlation:.4f} of their log likelihoods"))
        return _table(lines)

    def speed_lines(self) -> str:
        """Returns the speeds of both, for people; nothing where none was measured."""
        lines = []
        for label, n, key in (
            ("prefill", self.n_prompt, "prefill_tps"),
            ("decode", self.n_generate, "decode_tps"),
        ):
            one, other = (speeds[key] for speeds in self.speeds)
            if one is not None and other is not None:
                text = f"A {one:.1f}, B {other:.1f} tokens/s; B / A {other / one:.2f}"
                lines.append((f"{label} {n}", text))
        return _table(lines)


def n_same_tokens(answers: "list[Generation]") -> int:
    """Returns how many tokens two answers have in common at their beginning."""
    a, b = (answer.tokens for answer in answers)
    pairs = zip(a, b, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Returns a figure under its name, and the standard error of an estimate beside it."""
    if isinstance(value, Estimate):
        return {name: _finite(value.mean), f"{name}_se": _finite(value.se)}
    return {name: value}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _answer(generation: "Generation") -> dict[str, Any]:
    return {
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "tokens": generation.tokens,
    }


def _shown(value: Estimate) -> str:
    return f"{value.mean:.6g}" + (f" ± {value.se:.3g}" if value.se is not None else "")


def _percent(value: Estimate, sign: str = "") -> str:
    error = f" ± {100 * value.se:.3f}" if value.se is not None else ""
    return f"{100 * value.mean:{sign}.3f}{error}%"


def _table(lines: list[tuple[str, str]]) -> str:
    return "\n".join(f"{label:<19}{text}".rstrip() for label, text in lines)
