"""The report of a conversion as a page of HTML that needs nothing but itself."""

from edgeqwen.quant.markup import Markup, element, joined, text
from edgeqwen.quant.report import QuantizeReport, TensorReport
from edgeqwen.quant.report_axes import percent, size
from edgeqwen.quant.report_plots import (
    cosine_plot,
    layer_panels,
    relative_error,
    sparkline,
    type_bars,
)

# No script, no file from elsewhere: whatever a name in a file holds, a browser runs nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = Markup("""
:root { color-scheme: light dark; --page: #fff; --panel: #f6f6f4; --ink: #1d1d1b;
  --soft: #5f5f5a; --rule: #dcdcd7; --mark: #0072b2; --others: #c9c9c3;
  --tint: #d3e6f2; }
@media (prefers-color-scheme: dark) { :root { --page: #161819; --panel: #1e2123; --ink: #e9e7e3;
  --soft: #a5a39d; --rule: #353a3d; --mark: #56b4e9; --others: #474d51;
  --tint: #1d4257; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 24px 16px 64px; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 16px; }
h2 { font-size: 18px; margin: 40px 0 4px; }
p { margin: 0 0 12px; max-width: 75ch; color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 8px;
  margin: 0 0 12px; }
dl div { background: var(--panel); border-radius: 6px; padding: 8px 12px; }
dl .wide { grid-column: 1 / -1; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; font-weight: 600; }
.wide dd { font-weight: 400; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr));
  gap: 16px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr));
  gap: 0 32px; align-items: start; }
svg { display: block; font: 12px system-ui, sans-serif; }
svg:not([width]) { width: 100%; max-width: 560px; height: auto; }
.label { fill: var(--soft); }
.name { fill: var(--ink); font-weight: 600; }
.rule { stroke: var(--rule); }
.line, .others { fill: none; stroke-width: 1.5; stroke-linejoin: round; }
.line { stroke: var(--mark); }
.others { stroke: var(--others); stroke-width: 1; }
.dot, .bar { fill: var(--mark); }
.faint { fill-opacity: 0.45; }
.open { fill: var(--page); stroke: var(--mark); }
.scroll { overflow-x: auto; border: 1px solid var(--rule); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; white-space: nowrap;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 5px 8px; text-align: left; border-bottom: 1px solid var(--rule); }
thead th { background: var(--panel); color: var(--soft); font-weight: 600; }
tbody th { font-weight: 400; }
tbody tr:last-child > * { border-bottom: 0; }
.n { text-align: right; }
.share { background: linear-gradient(to left, var(--tint) var(--share), transparent 0); }
""")


def page(report: QuantizeReport) -> str:
    """Returns the page; the report's tensors have their errors."""
    title = f"{report.output.name}: errors of quantization"
    body = [
        element("h1", text(title)),
        _summary(report),
        *(element("p", text(note)) for note in report.notes),
        *_layers(report),
        _pair(report),
        *_table_section(report),
    ]
    head = [
        element("meta", attributes={"charset": "utf-8"}),
        element(
            "meta",
            attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"},
        ),
        element("meta", attributes={"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        element("title", text(title)),
        element("style", _STYLE),
    ]
    whole = [element("head", joined(head)), element("body", joined(body))]
    return "<!doctype html>\n" + element("html", joined(whole), attributes={"lang": "en"}) + "\n"


def _summary(report: QuantizeReport) -> Markup:
    facts = [
        ("Recipe", report.type),
        ("Size", size(report.n_bytes)),
        ("Bits per weight", f"{report.bits_per_weight:.2f}"),
        ("Weights", f"{report.n_weights:,}"),
        ("Tensors", f"{len(report.tensors)}"),
        ("Time", f"{report.seconds:.1f} s"),
    ]
    paths = [("From", str(report.source)), ("To", str(report.output))]
    return element(
        "dl",
        *(_fact(name, value, "fact") for name, value in facts),
        *(_fact(name, value, "wide") for name, value in paths),
    )


def _fact(name: str, value: str, kind: str) -> Markup:
    pair = element("dt", text(name)), element("dd", text(value))
    return element("div", *pair, attributes={"class": kind})


def _layers(report: QuantizeReport) -> list[Markup]:
    heading = element("h2", text("Error by layer"))
    panels = layer_panels(report.tensors)
    if not panels:
        return [heading, element("p", text("Every tensor of the layers is exact."))]
    explained = (
        "RMSE of what was written, as a part of the RMS of the weights; the axes are the same in "
        "all plots, and the other lines stand in grey. Open marks on the lower edge are exact. "
        "Tensors that are exact in every layer aren't shown."
    )
    grid = element("div", joined(panels), attributes={"class": "panels"})
    return [heading, element("p", text(explained)), grid]


def _pair(report: QuantizeReport) -> Markup:
    """Returns the plots that stand side by side where there is room."""
    sections = [
        joined(
            [
                element("h2", text("Bytes by type")),
                element("p", text("Sizes of tensors, without the file's header.")),
                type_bars(report.by_type),
            ]
        )
    ]
    if (plot := cosine_plot(report.tensors)) is not None:
        explained = (
            "1 − cosine of the angle between the weights and what was written: 0 is the same "
            "direction. A mark is a tensor."
        )
        sections.append(
            joined([element("h2", text("Cosine")), element("p", text(explained)), plot])
        )
    columns = joined(element("section", section) for section in sections)
    return element("div", columns, attributes={"class": "pair"})


def _table_section(report: QuantizeReport) -> list[Markup]:
    tensors = sorted(report.tensors, key=relative_error, reverse=True)
    measured = [tensor.errors for tensor in tensors if tensor.errors is not None]
    weighted = any(errors.weighted_relative_rmse is not None for errors in measured)
    explained = (
        "The largest relative error first; the exact ones come last, in the order of the file. "
        "The worst block is named by (row, first column); its RMSE is a part of the RMS of "
        "the whole tensor. Histograms count |error| as a part of that RMS, on a logarithmic scale "
        "from 0.0015 % to 400 %, the same for all; the first bin holds what is exact, too."
    )
    if weighted:
        explained += " Weighted errors count columns by their importance."
    heads = [_cell("th", head) for head in ("Tensor", "Shape", "Type")]
    numbers = ["Bits", "RMSE", "RMSE / RMS", *["Weighted"] * weighted, "Cosine", "Largest error"]
    heads += [_cell("th", head, "n") for head in numbers]
    heads += [_cell("th", head) for head in ("Histogram", "Worst block")]
    most = relative_error(tensors[0])
    rows = joined(_row(tensor, most, weighted=weighted) for tensor in tensors)
    table = element("table", element("thead", element("tr", *heads)), element("tbody", rows))
    # A region that scrolls must be reachable by keyboard, and have a name.
    place: dict[str, str | float] = {
        "class": "scroll",
        "tabindex": "0",
        "role": "region",
        "aria-label": "All tensors",
    }
    return [
        element("h2", text("All tensors")),
        element("p", text(explained)),
        element("div", table, attributes=place),
    ]


def _row(tensor: TensorReport, most: float, *, weighted: bool) -> Markup:
    """Returns a tensor's line; ``most`` is the largest relative error of all."""
    cells = [
        element("th", text(tensor.name), attributes={"scope": "row"}),
        _cell("td", " × ".join(map(str, tensor.shape))),
        _cell("td", f"{tensor.source_type.name} → {tensor.type.name}"),
        _cell("td", f"{tensor.bits_per_weight:.2f}", "n"),
    ]
    errors = tensor.errors
    if errors is None or errors.worst is None:
        shown = "exact" if errors is not None else "not measured"
        rest = element("td", text(shown), attributes={"colspan": str(6 + weighted)})
        return element("tr", *cells, rest)
    worst = errors.worst
    part = 100 * relative_error(tensor) / most if most else 0.0
    share: dict[str, str | float] = {"class": "n share", "style": f"--share: {part:.0f}%"}
    cells += [
        _cell("td", _number(errors.rmse), "n"),
        element("td", text(percent(errors.relative_rmse)), attributes=share),
    ]
    if weighted:
        value = errors.weighted_relative_rmse
        cells.append(_cell("td", "" if value is None else percent(value), "n"))
    place = f"{percent(worst.relative_rmse)} at ({worst.row}, {worst.column})"
    cells += [
        _cell("td", _cosine(errors.cosine), "n"),
        _cell("td", _number(errors.max_error), "n"),
        element("td", sparkline(errors.histogram)),
        _cell("td", place),
    ]
    return element("tr", *cells)


def _number(value: float) -> str:
    """Returns a figure with three digits."""
    return f"{value:#.3g}"


def _cosine(value: float) -> str:
    """Returns a cosine, as its distance from 1 where digits would hide it."""
    return f"{value:.6f}" if 1 - value > 1e-5 else f"1 − {1 - value:.1g}"


def _cell(tag: str, content: str, kind: str = "") -> Markup:
    return element(tag, text(content), attributes={"class": kind} if kind else None)
