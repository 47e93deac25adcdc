"""The benchmark of kernels: what its tapes compute, what its ratios are, and its page."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import kernel_speed, kernel_tapes, machine
from benchmarks.kernel_page import page
from benchmarks.kernel_tapes import aligned, fill, matrices, record_products, record_read
from edgeqwen.executor import Team
from edgeqwen.formats import Q4_0, Q5_1, Q6_K
from tests.benchmarks.tables import rows
from tests.formats.packing import dequantized, weights_of

SHAPES = ((48, 256), (32, 512))


def test_matrices_follow_one_another_and_end_with_the_last_shape() -> None:
    planned = matrices(Q4_0, SHAPES, 20_000)
    assert [(m.n_rows, m.n_columns) for m in planned] == [*SHAPES, *SHAPES]
    ends = [m.address + m.n_bytes for m in planned]
    assert [m.address for m in planned] == [0, *ends[:-1]]
    assert ends[-1] == 2 * (48 * 256 + 32 * 512) * 18 // 32 >= 20_000


def test_tapes_compute_the_products() -> None:
    planned = matrices(Q6_K, SHAPES, 1)
    memory = aligned(planned[-1].address + planned[-1].n_bytes)
    fill(memory, planned)
    address = memory.ctypes.data
    with closing(Team(2)) as team:
        tapes = {n: record_products(planned, address, n, team) for n in (1, 3)}
        for n_tokens, (recorded, outputs) in tapes.items():
            recorded.run(team)
            for (n_rows, n_columns), output in zip(SHAPES, outputs, strict=True):
                weights = dequantized(Q6_K, weights_of(Q6_K, 16, n_columns // 256))
                rng = np.random.default_rng(n_columns)
                x = rng.standard_normal((n_tokens, n_columns), np.float32)
                expected = np.tile(x @ weights.T, n_rows // 16)
                np.testing.assert_allclose(output, expected, atol=0.02 * np.abs(expected).max())


def test_a_plain_read_adds_up_all_words() -> None:
    # Tiles of 384 bytes: whole vectors on every instruction set.
    planned = matrices(Q5_1, SHAPES, 1)
    memory = aligned(planned[-1].address + planned[-1].n_bytes)
    fill(memory, planned)
    with closing(Team(2)) as team:
        read, sums = record_read(planned, memory.ctypes.data, team)
        read.run(team)
        words = memory.view(np.uint32).sum(dtype=np.uint32)
        assert sums.view(np.uint32).sum(dtype=np.uint32) == words


def test_ratios_are_medians_of_each_rounds_own() -> None:
    # The second round is twice as slow for all; in the third, the reference had to wait.
    ours = {"read": [1.0, 2.0, 1.0], "gemv": [2.0, 4.0, 1.0], "gemm": [3.0, 6.0, 3.0]}
    reference = {"read": [1.0] * 3, "gemv": [1.0] * 3, "gemm": [1.5, 3.0, 9.0]}
    found = kernel_speed.figures(ours, reference)
    assert found["gemv_of_read"] == 0.5
    assert found["gemm_of_reference"] == 0.5
    assert (found["read_s"], found["gemv_s"], found["gemm_s"]) == (1.0, 2.0, 3.0)
    assert found["rounds_s"] == ours


def test_the_page() -> None:
    text = page(report())
    assert rows(text, "Q8_0") == [
        ["Q8_0", "8.50", "12.0", "60 %", "16.0", "80 %"],
        ["Q8_0", "0.75 (41.3)", "0.50 (82.6)"],
    ]
    assert rows(text, "plain read") == [["plain read", "", "20.0", "", "20.0", ""]]
    assert "17920 × 1536 and 1536 × 8960" in text
    assert "at least 240 MB" in text
    assert "Medians of 7 rounds" in text
    assert "busy" not in text
    busy = report()
    busy["machine"]["load_average"] = 1.5
    assert "The machine was busy (load average 1.5)" in page(busy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-t", "0"], "0 is not a positive number"),
        (["--types", "q9_9"], "--types: Q9_9; choose from F32, F16"),
        (["--tokens", "1"], "--tokens is 1; a GEMM has 2 or more"),
        (["--from-json", "--json", "none.json"], "none.json is not a file; measure first"),
    ],
)
def test_senseless_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        kernel_speed.parse(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


def test_all_is_compared_with_the_reference_though_it_was_not_asked_for() -> None:
    options = kernel_speed.parse(["--types", "q6_k", "-t", "1", "2"])
    assert options.types == ["Q4_0", "Q6_K"]
    assert kernel_speed.command(options).endswith(
        " -t 1 2 --tokens 256 --rounds 7 --passes 3 --mb 268 --types Q4_0 Q6_K"
    )


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_speed, "FFN", SHAPES)
    monkeypatch.setattr(machine, "BUFFER_BYTES", 1 << 22)
    figures = tmp_path / "kernels.json"
    small = ["-t", "1", "2", "--types", "Q6_K", "--tokens", "3", "--rounds", "2", "--mb", "1"]
    kernel_speed.main([*small, "--json", str(figures), "--docs", str(tmp_path)])
    found = json.loads(figures.read_text("utf-8"))
    assert [type["type"] for type in found["types"]] == ["Q4_0", "Q6_K"]
    for type in found["types"]:
        assert type["n_bytes"] >= 1_000_000
        assert {len(v) for by in type["by_threads"].values() for v in by["rounds_s"].values()} == {
            2
        }
    assert found["types"][0]["by_threads"]["2"]["gemm_of_reference"] == 1.0
    assert len(rows((tmp_path / "kernels.md").read_text("utf-8"), "Q6_K")) == 2
    assert kernel_tapes.FFN == ((17920, 1536), (1536, 8960))


def report() -> dict[str, Any]:
    """Returns a small kernel_speed.json, as if measured."""

    def by_threads(read: float, gemv: float, gemm: float, ratio: float) -> dict[str, float]:
        shares = {"gemv_of_read": read / gemv, "gemm_of_reference": ratio}
        return {**shares, "read_s": read, "gemv_s": gemv, "gemm_s": gemm}

    return {
        "command": "python -m benchmarks.kernel_speed",
        "machine": {
            "cpu": "A CPU",
            "n_usable_cpus": 2,
            "isa": "avx2",
            "load_average": 0.1,
            "commit": "0123456789ab",
            "versions": {"python": "3.11.9"},
        },
        "options": {
            "threads": [1, 2],
            "n_tokens": 256,
            "rounds": 7,
            "shapes": [[17920, 1536], [1536, 8960]],
        },
        "types": [
            {
                "type": "Q4_0",
                "bits_per_weight": 4.5,
                "n_bytes": 240_000_000,
                "by_threads": {
                    "1": by_threads(0.012, 0.02, 0.192, 1.0),
                    "2": by_threads(0.012, 0.015, 0.064, 1.0),
                },
            },
            {
                "type": "Q8_0",
                "bits_per_weight": 8.5,
                "n_bytes": 480_000_000,
                "by_threads": {
                    "1": by_threads(0.024, 0.04, 0.256, 0.75),
                    "2": by_threads(0.024, 0.03, 0.128, 0.5),
                },
            },
        ],
    }
