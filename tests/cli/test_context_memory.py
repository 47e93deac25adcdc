"""What a context takes is told before it is taken, and a warning where there is too little."""

from pathlib import Path

import pytest

from edgeqwen.cli import memory
from edgeqwen.cli.context_memory import LARGE
from tests.cli.running import run

# The fake model takes 4000 bytes for a token, and 1 MB for its weights.
N_LARGE = str(-(-LARGE // 4000))
TRAINED = (
    "edgeqwen: the model was trained for 1000 tokens, and does worse beyond them; --yarn FACTOR "
    "makes its context longer\n"
)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The memory that is left, in the only place of a list."""
    found: list[int | None] = [8 << 30]
    monkeypatch.setattr(memory, "available_bytes", lambda: found[0])
    return found


@pytest.mark.parametrize("command", [("chat", "x.gguf"), ("run", "x.gguf", "hello")])
def test_a_large_context_that_was_asked_for(
    command: tuple[str, ...], free: list[int | None]
) -> None:
    expected = (
        f"edgeqwen: a context of {N_LARGE} tokens takes up to 256.0 MiB of memory, "
        f"beside 976.6 KiB of weights\n{TRAINED}"
    )
    assert run(*command, "-c", N_LARGE, answer="a").stderr == expected
    assert run(*command, "-c", str(int(N_LARGE) - 1), answer="a").stderr == TRAINED
    assert run(*command, "-c", "1001", answer="a").stderr == TRAINED
    assert run(*command, "-c", "1000", answer="a").stderr == ""
    free[0] = None  # a system that doesn't tell
    assert run(*command, "-c", N_LARGE, answer="a").stderr == expected


def test_one_that_nobody_asked_for(free: list[int | None]) -> None:
    """The fake model's own context of 1000 tokens is told only beside little memory."""
    assert run("chat", "x.gguf").stderr == ""
    free[0] = 7_999_999
    assert run("chat", "x.gguf").stderr == (
        "edgeqwen: a context of 1000 tokens takes up to 3.8 MiB of memory, beside 976.6 KiB of "
        "weights\n"
    )


def test_too_little_memory(free: list[int | None]) -> None:
    free[0] = 20_000_000
    assert run("chat", "x.gguf", "-c", "100000", answer="a").stderr == (
        "edgeqwen: warning: a context of 100000 tokens takes up to 381.5 MiB of memory, but only "
        f"19.1 MiB are free: --context 3072 fits\n{TRAINED}"
    )
    free[0] = 1_000_000
    assert run("chat", "x.gguf").stderr.endswith("are free: a smaller model needs less\n")


def test_the_machine_s_memory(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       24684000 kB\nMemAvailable:      1024 kB\nx\n")
    assert memory._free_in_machine(meminfo) == 1 << 20
    for text in ("", "MemAvailable:\n", "MemAvailable: many kB\n"):
        meminfo.write_text(text)
        assert memory._free_in_machine(meminfo) is None


def test_the_limit_of_a_container(tmp_path: Path) -> None:
    assert memory._free_in_group(tmp_path) is None
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_in_group(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory._free_in_group(tmp_path) == 300
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 200\n")
    assert memory._free_in_group(tmp_path) == 500
    (tmp_path / "memory.max").write_text("100\n")
    assert memory._free_in_group(tmp_path) == 0


def test_the_lesser_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_free_in_machine", lambda _: 5)
    monkeypatch.setattr(memory, "_free_in_group", lambda _: 3)
    assert memory.available_bytes() == 3
    monkeypatch.setattr(memory, "_free_in_group", lambda _: None)
    assert memory.available_bytes() == 5
    monkeypatch.setattr(memory, "_free_in_machine", lambda _: None)
    assert memory.available_bytes() is None
