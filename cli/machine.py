"""What ``edgeqwen bench --roofline`` measures beside a model: what the machine reaches at most."""

from typing import TYPE_CHECKING, Any, Self

from edgeqwen.cli.memory import peak_rss_bytes

if TYPE_CHECKING:
    from edgeqwen.engine import Engine
    from edgeqwen.roofline import Limits

_LIMITS = ("read_bytes_per_s", "integer_macs_per_s", "float_macs_per_s")
_READ = ("weight", "cache")


class Machine:
    """The machine's limits, measured in turns with a model, and the model's share of them."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._limits: Limits | None = None
        self.peak_rss_bytes: int | None = None

    def measure(self) -> None:
        """Measures once. Notes before the first time, which takes memory, what the model took."""
        if self._limits is None:
            from edgeqwen.roofline import Limits

            self.peak_rss_bytes = peak_rss_bytes()
            self._limits = Limits(self._engine.n_threads)
        self._limits.measure()

    def roofline(self, figures: dict[str, Any]) -> dict[str, Any]:
        """Returns the limits, with all samples, and which share of them a model's figures are."""
        from edgeqwen.roofline import roofline

        assert self._limits is not None, "nothing was measured"
        found = self._limits.figures()
        return {
            "isa": self._limits.isa.name,
            **found,
            **{f"{name}_samples": samples for name, samples in self._limits.samples.items()},
            **roofline(self._engine.work, found, figures, depth=figures["depth"]),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._limits is not None:
            self._limits.close()


def roofline_lines(found: dict[str, Any]) -> list[str]:
    """Returns the lines that tell what ``Machine.roofline`` has found."""
    billions = {name: found[name] / 1e9 for name in _LIMITS}
    integers, floats = (f"{billions[f'{kind}_macs_per_s']:.0f}" for kind in ("integer", "float"))
    lines = [
        _line("memory", f"{billions['read_bytes_per_s']:.1f} GB/s of plain reads"),
        _line("multiplication", f"{integers} GMAC/s of int8, {floats} of float32 ({found['isa']})"),
    ]
    if decode := found.get("decode"):
        rate = f"{decode['bytes_per_s'] / 1e9:.1f} GB/s, {decode['share']:.0%} of that"
        weights, cache = (f"{decode[f'{what}_bytes'] / 1e6:.1f} MB" for what in _READ)
        lines.append(
            _line("decode reads", f"{rate}: {weights} of weights, {cache} of KV cache a token")
        )
    if prefill := found.get("prefill"):
        rate = f"{prefill['macs_per_s'] / 1e9:.0f} GMAC/s, {prefill['share']:.0%} of that"
        products = (prefill["integer_macs"] + prefill["float_macs"]) / 1e6
        attention = f"{prefill['attention_macs'] / 1e6:.1f} million more, in float32"
        lines += [
            _line("prefill multiplies", f"{rate}: {products:.0f} million a token in the matrices"),
            _line("  with attention", f"{prefill['share_with_attention']:.0%}: {attention}"),
        ]
    return lines


def _line(label: str, text: str) -> str:
    return f"{label:<22}{text}"
