"""``edgeqwen bench``: the figures it gives, on an engine whose steps take a known time."""

import pytest

from edgeqwen.cli.memory import peak_rss_bytes
from tests.cli import fake_program
from tests.cli.running import json_of, run
from tests.fakes import fake_model


def test_json() -> None:
    options = ("-p", "40", "-n", "5", "-d", "20", "-t", "1", "-r", "2", "--json")
    figures = json_of(run("bench", "x.gguf", *options, FAKE_STEP_S="0.01"))
    # A prompt is two steps of the fake engine, whatever its length.
    assert 40 / 0.1 < figures["prefill_tps"] <= 40 / 0.02
    assert 5 / 0.2 < figures["decode_tps"] <= 5 / 0.05
    assert len(figures["prefill_tps_samples"]) == len(figures["decode_tps_samples"]) == 2
    assert figures["first_token_s"] >= figures["load_s"] + 0.02
    assert figures["peak_rss_bytes"] > 1 << 20
    assert figures["n_threads"] == 1
    sizes = [figures[key] for key in ("n_prompt", "n_generate", "depth", "repetitions")]
    assert sizes == [40, 5, 20, 2]


def test_text() -> None:
    done = run("bench", "x.gguf", "-p", "40", "-n", "5", "-d", "3")
    assert (done.returncode, done.stderr) == (0, "")
    labels = [line[:22].rstrip() for line in done.stdout.splitlines()]
    assert labels == [
        "threads",
        "prefill 40 at 3",
        "decode 5 at 3",
        "load",
        "load to first token",
        "peak memory",
    ]


@pytest.mark.parametrize(("left_out", "kept"), [("-p", "decode"), ("-n", "prefill")])
def test_one_of_both(left_out: str, kept: str) -> None:
    figures = json_of(run("bench", "x.gguf", left_out, "0", "--json"))
    assert figures[f"{kept}_tps"] > 0
    assert {figures["prefill_tps"], figures["decode_tps"]} >= {None}


def test_steps_compute_what_the_sampler_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """As generating does: the speed shown is that of generating."""
    model, engine = fake_model()
    monkeypatch.setattr(fake_program, "load", lambda path, **_: model)
    assert run("bench", "x.gguf", "-p", "0", "-n", "3", "-r", "1").returncode == 0
    assert len(engine.wanted) == 1 + 3
    assert all(wanted is not None and wanted.k == 1 for wanted in engine.wanted)  # greedy


def test_neither() -> None:
    done = run("bench", "x.gguf", "-p", "0", "-n", "0")
    assert done.returncode == 1
    assert done.stderr == "edgeqwen: there is nothing to measure: give -p or -n more than 0\n"


def test_peak_memory_grows_with_what_is_taken() -> None:
    before = peak_rss_bytes()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    after = peak_rss_bytes()
    assert before is not None
    assert after is not None
    assert 0 <= after - before < 1 << 30
    assert after >= 64 << 20
