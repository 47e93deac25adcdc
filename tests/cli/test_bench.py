"""``edgeqwen bench``: the figures it gives, on an engine whose steps take a known time."""

import pytest

from edgeqwen import roofline
from edgeqwen.cli import machine
from edgeqwen.cli.memory import peak_rss_bytes
from tests.cli import fake_program
from tests.cli.running import json_of, run
from tests.fakes import fake_model


def test_json() -> None:
    options = ("-p", "40", "-n", "5", "-d", "20", "-t", "1", "-r", "2", "--kv", "q8_0", "--json")
    figures = json_of(run("bench", "x.gguf", *options, FAKE_STEP_S="0.01"))
    # A prompt is two steps of the fake engine, whatever its length.
    assert 40 / 0.1 < figures["prefill_tps"] <= 40 / 0.02
    assert 5 / 0.2 < figures["decode_tps"] <= 5 / 0.05
    assert len(figures["prefill_tps_samples"]) == len(figures["decode_tps_samples"]) == 2
    assert figures["first_token_s"] >= figures["load_s"] + 0.02
    assert figures["peak_rss_bytes"] > 1 << 20
    assert (figures["n_threads"], figures["kv"]) == (1, "q8_0")
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


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "READ_BYTES", 1 << 24)
    monkeypatch.setattr(roofline, "STEPS", {"integer": 10, "float": 10})


def test_roofline_as_json(small_limits: None) -> None:
    options = ("-p", "40", "-n", "5", "-d", "20", "-r", "3", "--json")
    figures = json_of(run("bench", "x.gguf", *options, "--roofline"))
    found = figures["roofline"]
    for limit in ("read_bytes_per_s", "integer_macs_per_s", "float_macs_per_s"):
        assert sorted(found[f"{limit}_samples"])[1] == found[limit] > 0
    assert found["decode"]["cache_bytes"] == 23 * 4_000
    rate = figures["decode_tps"] * (1_000_000 + 23 * 4_000)
    assert found["decode"]["share"] == pytest.approx(rate / found["read_bytes_per_s"])
    assert found["prefill"]["attention_macs"] == 40.5 * 8_000
    products = figures["prefill_tps"] * 2_000_000 / found["integer_macs_per_s"]
    assert found["prefill"]["share"] == pytest.approx(products)
    assert found["isa"]
    assert "roofline" not in json_of(run("bench", "x.gguf", *options))


def test_memory_is_noted_before_measuring_the_machine_takes_its_own(
    small_limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Taking(roofline.Limits):
        def __init__(self, *_: object) -> None:
            monkeypatch.setattr(machine, "peak_rss_bytes", lambda: 1 << 40)
            super().__init__(1)

    monkeypatch.setattr(roofline, "Limits", Taking)
    monkeypatch.setattr(machine, "peak_rss_bytes", lambda: 12345)
    figures = json_of(run("bench", "x.gguf", "-n", "2", "--roofline", "--json"))
    assert figures["peak_rss_bytes"] == 12345


def test_roofline_as_text(small_limits: None) -> None:
    lines = run("bench", "x.gguf", "-p", "40", "-n", "5", "--roofline").stdout.splitlines()
    labels = [line[:22].strip() for line in lines[6:]]
    assert labels == [
        "memory",
        "multiplication",
        "decode reads",
        "prefill multiplies",
        "with attention",
    ]
    assert "1.0 MB of weights, 0.0 MB of KV cache a token" in lines[8]
    assert "2 million a token in the matrices" in lines[9]
    only = run("bench", "x.gguf", "-p", "0", "-n", "5", "--roofline").stdout
    assert "decode reads" in only
    assert "prefill" not in only


def test_peak_memory_grows_with_what_is_taken() -> None:
    before = peak_rss_bytes()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    after = peak_rss_bytes()
    assert before is not None
    assert after is not None
    assert 0 <= after - before < 1 << 30
    assert after >= 64 << 20
