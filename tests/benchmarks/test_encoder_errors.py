"""The benchmark of encoders: what it counts as an error, how it sums up, and its page."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import encoder_errors, guide_tasks
from benchmarks.encoder_page import decibels, page, write_encoder_page
from benchmarks.encoder_samples import Sample, random_samples, trained_samples
from edgeqwen.ggml_types import GgmlType
from tests.benchmarks.tables import rows
from tests.hf_checkpoints import write_checkpoint


def rounded_to(step: float) -> encoder_errors.Encoder:
    """Returns an "encoder" to float32 that rounds to multiples of a step."""

    def encode(type: Any, weights: Any, out: Any, importance: Any) -> None:
        out[:] = (np.round(weights / step) * step).astype(np.float32).reshape(-1).view(np.uint8)

    return encode


def test_errors_are_weighed_relative_and_over_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        encoder_errors, "ENCODERS", {"edgeqwen": rounded_to(2.0), "ggml": rounded_to(8.0)}
    )
    samples = [
        Sample(np.array([[1.5, 2.0]], np.float32), np.array([4.0, 1.0], np.float32)),
        Sample(np.array([[0.0, 3.0]], np.float32), np.array([1.0, 2.0], np.float32)),
    ]
    found = encoder_errors.compare_errors(GgmlType.F32, samples)
    # Ours: 2, 2, 0, 4; theirs: 0, 0, 0, 0.
    power, weighted_power = 2.25 + 4 + 9, 4 * 2.25 + 4 + 2 * 9
    assert found["plain"]["edgeqwen"] == pytest.approx((0.25 + 1) / power)
    assert found["plain"]["ggml"] == pytest.approx(1.0)
    assert found["plain"]["ratio"] == pytest.approx(1.25 / power)
    assert found["weighted"]["edgeqwen"] == pytest.approx((4 * 0.25 + 2 * 1) / weighted_power)
    assert found["weighted"]["ratio"] == pytest.approx(3 / weighted_power)


def test_speeds_are_measured_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[tuple[str, bool]] = []

    def named(name: str) -> encoder_errors.Encoder:
        return lambda type, weights, out, importance: turns.append((name, importance is not None))

    encoders = {name: named(name) for name in ("edgeqwen", "ggml")}
    monkeypatch.setattr(encoder_errors, "ENCODERS", encoders)
    sample = Sample(np.zeros((1, 256), np.float32), np.ones(256, np.float32))
    found = encoder_errors.compare_speed(GgmlType.Q4_K, sample, 2)
    assert turns == [(name, how) for how in (False, True) for _ in range(3) for name in encoders]
    assert {len(found[how]["rounds"]["ggml"]) for how in ("plain", "weighted")} == {2}


def test_chunks_are_encoded_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_errors, "CHUNK_WEIGHTS", 64)
    weights = np.random.default_rng(0).standard_normal((5, 32)).astype(np.float32)
    ours = encoder_errors.ENCODERS["edgeqwen"]
    pieces = encoder_errors.encoded(ours, GgmlType.Q8_0, weights, None)
    monkeypatch.setattr(encoder_errors, "CHUNK_WEIGHTS", 1 << 16)
    assert (pieces == encoder_errors.encoded(ours, GgmlType.Q8_0, weights, None)).all()
    back = encoder_errors.decoded(GgmlType.Q8_0, pieces, weights.shape)
    np.testing.assert_allclose(back, weights, atol=0.02)


def test_random_samples() -> None:
    samples = random_samples(1 << 18)
    assert list(samples) == ["normal", "heavy-tailed"]
    normal, heavy = (samples[name][0].weights for name in samples)
    assert normal.shape == heavy.shape == (64, 4096)

    def kurtosis(x: np.ndarray) -> float:
        return float((x**4).mean() / (x**2).mean() ** 2)

    assert kurtosis(normal) == pytest.approx(3, abs=0.1)
    assert kurtosis(heavy) > 6


def test_trained_samples_are_the_matrices_of_the_layers(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "hf", n_layers=1, hidden_size=128)
    samples = trained_samples(checkpoint, 600, 1)
    assert [sample.weights.shape for sample in samples] == [
        *((128, 128), (64, 128), (64, 128), (128, 128), (96, 128), (96, 128), (128, 96)),
    ]
    for sample in samples:
        assert sample.importance.shape == sample.weights.shape[1:]
        assert sample.importance.max() > 0
        assert 0 < np.abs(sample.weights).max() < 30


@pytest.mark.peers
def test_ggml_encodes_what_gguf_decodes() -> None:
    pytest.importorskip("llama_cpp", reason="compares with llama.cpp (llama-cpp-python)")
    samples = random_samples(4096)["normal"]
    for type in encoder_errors.TYPES:
        found = encoder_errors.compare_errors(type, samples)
        for how in ("plain", "weighted"):
            assert 0 < found[how]["ggml"] < 0.15
    ggml = encoder_errors.ENCODERS["ggml"]
    with pytest.raises(ValueError, match="Q4_0: room for 17 bytes, expected 18"):
        ggml(GgmlType.Q4_0, np.zeros((1, 32), np.float32), np.zeros(17, np.uint8), None)


def test_decibels() -> None:
    assert [decibels(x) for x in (0.01, 1.0, 0.0)] == ["−20.00", "0.00", "none"]


def test_the_page(tmp_path: Path) -> None:
    shown = write_encoder_page(report(), tmp_path / "encoders.md")
    text = (tmp_path / "encoders.md").read_text("utf-8")
    assert text == page(report())
    assert rows(text, "Q4_K") == [
        ["Q4_K", "−20.00", "0.900", "−20.00", "0.900", "−20.00", "0.900"],
        ["Q4_K", "−23.01", "0.800", "−23.01", "0.800", "−23.01", "0.800"],
        ["Q4_K", "20.0", "5.0", "4.00", "10.0", "2.5", "4.00"],
    ]
    assert rows(shown, "Q4_K") == rows(text, "Q4_K")
    assert "as many of Student's t with 4 degrees" in text
    assert "built-in model's matrices, 4.5 million weights" in text
    assert "collected from 40000 tokens" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "0 is not a positive number"),
        (["--from-json", "--json", "none.json"], "none.json is not a file; measure first"),
        ([], "holds no checkpoint"),
    ],
)
def test_senseless_arguments(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(guide_tasks, "CHECKPOINT", tmp_path / "nothing")
    with pytest.raises(SystemExit):
        encoder_errors.parse(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


def report() -> dict[str, Any]:
    """Returns a small encoder_errors.json, as if measured."""
    kinds = ("normal", "heavy-tailed", "trained")
    errors = {
        "plain": {"edgeqwen": 0.01, "ggml": 0.01 / 0.9, "ratio": 0.9},
        "weighted": {"edgeqwen": 0.005, "ggml": 0.00625, "ratio": 0.8},
    }
    return {
        "command": "python -m benchmarks.encoder_errors",
        "machine": {
            "cpu": "A CPU",
            "n_usable_cpus": 2,
            "isa": "avx2",
            "load_average": 0.1,
            "commit": "0123456789ab",
            "versions": {"python": "3.11.9"},
        },
        "options": {"n_tokens": 40_000, "rounds": 7, "columns": 4096},
        "n_weights": {"normal": 1 << 20, "heavy-tailed": 1 << 20, "trained": 4_500_000},
        "types": [
            {
                "type": "Q4_K",
                "errors": dict.fromkeys(kinds, errors),
                "speed": {
                    "plain": {"edgeqwen": 20e6, "ggml": 5e6, "ratio": 4.0},
                    "weighted": {"edgeqwen": 10e6, "ggml": 2.5e6, "ratio": 4.0},
                },
            }
        ],
    }
