"""The benchmark of converting: who has a turn when, what is summed up, and its page."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine, quantize_run, quantize_sources, quantize_speed
from benchmarks.quantize_page import beside_text, page, write_quantize_page
from benchmarks.quantize_run import COPY, Run, run
from tests.benchmarks.tables import rows


def test_contestants_take_turns_and_a_copy_writes_as_much() -> None:
    turns: list[tuple[str, int]] = []

    def runner(who: str, *_: object, copied_bytes: int = 0) -> Run:
        turns.append((who, copied_bytes))
        return Run(1.0, 1.0, 0.0, {"edgeqwen": 70, "llama.cpp": 60}.get(who, 0), 1)

    source = Path("model.gguf")
    found = quantize_speed.rounds_of("q4_0", source, 2, 2, runner)
    round_ = [("edgeqwen", 70), ("llama.cpp", 70), (COPY, 70)]
    assert turns == [("edgeqwen", 0), ("llama.cpp", 0), *round_, *round_]
    assert {who: len(runs) for who, runs in found.items()} == {
        "edgeqwen": 2,
        "llama.cpp": 2,
        COPY: 2,
    }
    assert COPY not in quantize_speed.rounds_of("q6_k", source, 2, 1, runner)


def test_medians_peaks_and_ratios() -> None:
    rounds = {
        "edgeqwen": [Run(1.0, s, 0.0, 50, 10, 5) for s in (1.0, 2.0, 9.0)],
        "llama.cpp": [Run(0.1, 2.5, f, 40, peak, None) for f, peak in ((1.5, 7), (0.5, 9))],
    }
    found = quantize_speed.summary(rounds, 200)
    assert found["edgeqwen"]["seconds"] == 2.0
    assert found["edgeqwen"]["read_bytes_per_s"] == 100
    assert found["edgeqwen"]["written_bytes_per_s"] == 25
    assert found["llama.cpp"]["flushed_s"] == 3.5
    assert found["llama.cpp"]["peak_rss_bytes"] == 9
    assert found["llama.cpp"]["peak_private_bytes"] is None
    assert found["ratio"]["llama.cpp"] == {
        "seconds": pytest.approx(0.8),
        "flushed_s": pytest.approx(2 / 3.5),
    }


def test_a_copy_in_a_process_of_its_own(tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(bytes(range(256)) * 20_000)
    found = run(COPY, source, output, "q4_0", 2, copied_bytes=1_234_567)
    assert found.output_bytes == 1_234_567
    assert found.seconds > 0
    assert found.peak_rss_bytes > 1_000_000
    assert not output.exists()


def test_a_copy_reads_and_writes_every_part(tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "copy"
    data = bytes(range(1, 252)) * 20_000  # without zeros, which holes would be
    source.write_bytes(data)
    quantize_run.copy(source, output, "", 3, len(data))
    assert output.read_bytes() == data
    quantize_run.copy(source, output, "", 2, 1_000_001)
    assert output.stat().st_size == 1_000_001
    assert 0 not in output.read_bytes()


def test_a_run_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="copy to q4_0 ended with code 1"):
        run(COPY, tmp_path / "nothing", tmp_path / "output", "q4_0", 1)


@pytest.mark.peers
def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp", reason="compares with llama.cpp (llama-cpp-python)")
    shape = {"n_layers": 1, "hidden_size": 256, "intermediate_size": 512}
    monkeypatch.setitem(quantize_sources.SHAPES, "72B-layer", shape)
    (tmp_path / "made").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "made"))
    monkeypatch.setattr(machine, "BUFFER_BYTES", 1 << 22)
    small = ["--shape", "72B-layer", "--types", "q4_0", "-t", "1", "--rounds", "1"]
    quantize_speed.main([*small, "--json", str(tmp_path), "--docs", str(tmp_path)])
    found = json.loads((tmp_path / "quantize_speed-72B-layer.json").read_text("utf-8"))
    (type,) = found["types"]
    for who in ("edgeqwen", "llama.cpp", COPY):
        assert type[who]["seconds"] > 0
        assert type[who]["output_bytes"] > 100_000
    assert type[COPY]["output_bytes"] == type["edgeqwen"]["output_bytes"]
    assert "## 72B-layer" in (tmp_path / "conversion.md").read_text("utf-8")
    left = [path.name for path in (tmp_path / "made" / "edgeqwen-benchmarks").iterdir()]
    assert left == ["random-72B-layer-small-vocabulary-f16.gguf"]


def test_the_page_has_a_section_for_every_shape(tmp_path: Path) -> None:
    for shape in ("1.5B", "72B-layer"):
        file = tmp_path / f"quantize_speed-{shape}.json"
        file.write_text(json.dumps({**report(), "shape": shape}))
    write_quantize_page(tmp_path, tmp_path / "conversion.md")
    text = (tmp_path / "conversion.md").read_text("utf-8")
    assert text.index("## 1.5B") < text.index("## 72B-layer")
    files = {f"quantize_speed-{shape}.json": shape for shape in ("1.5B", "72B-layer")}
    assert text == page({name: {**report(), "shape": shape} for name, shape in files.items()})


def test_the_tables() -> None:
    text = page({"quantize_speed-1.5B.json": report()})
    assert rows(text, "Q4_0") == [
        ["Q4_0", "2.00", "4.00", "0.50", "0.40", "1500", "450"],
        ["Q4_0", "300", "120", "3500", "not told", "900", "880"],
    ]
    assert "3.00 GB in F16; 2 threads, medians of 3 rounds." in text


def test_what_the_times_are_to_be_seen_beside() -> None:
    assert beside_text(report()) == (
        "A copy of as many bytes as for Q4_0 takes 1.60 s, and edgeqwen's time is 1.25 times that; "
        "the copy reads 1875 MB/s and writes 562 MB/s. What is imported first, once for a run of a "
        "program, is not in these times: 1.50 s for edgeqwen with Numba, 0.50 s for "
        "llama-cpp-python."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "9B"], "invalid choice: '9B'"),
        (["--types", "f16"], "invalid choice: 'f16'"),
        (["--from-json", "--json", "none"], "none holds no quantize_speed-*.json; measure first"),
    ],
)
def test_senseless_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        quantize_speed.parse(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


def report() -> dict[str, Any]:
    """Returns a small quantize_speed-SHAPE.json, as if measured."""

    def of(s: float, flushed: float, imports: float, output: int, rss: int) -> dict[str, Any]:
        return {
            "seconds": s,
            "flushed_s": flushed,
            "import_s": imports,
            "read_bytes_per_s": 3e9 / s,
            "written_bytes_per_s": 0.9e9 / s,
            "output_bytes": output,
            "peak_rss_bytes": rss,
            "peak_private_bytes": None,
        }

    ours = {**of(2.0, 2.0, 1.5, 900_000_000, 300_000_000), "peak_private_bytes": 120_000_000}
    return {
        "command": "python -m benchmarks.quantize_speed",
        "machine": {
            "cpu": "A CPU",
            "n_usable_cpus": 2,
            "isa": "avx2",
            "load_average": 0.1,
            "commit": "0123456789ab",
            "versions": {"python": "3.11.9"},
        },
        "shape": "1.5B",
        "source_bytes": 3_000_000_000,
        "options": {"n_threads": 2, "rounds": 3},
        "types": [
            {
                "type": "q4_0",
                "edgeqwen": ours,
                "llama.cpp": of(4.0, 5.0, 0.5, 880_000_000, 3_500_000_000),
                "copy": of(1.6, 1.6, 0.0, 900_000_000, 20_000_000),
                "ratio": {
                    "llama.cpp": {"seconds": 0.5, "flushed_s": 0.4},
                    "copy": {"seconds": 1.25, "flushed_s": 1.25},
                },
            }
        ],
    }
