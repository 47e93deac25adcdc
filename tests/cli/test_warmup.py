"""``edgeqwen warmup``: passes on what it was asked for."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli import fake_program
from tests.cli.running import run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["x.gguf", "-t", "3"], (Path("x.gguf"), 3, "f16")),
        (["--all", "--kv", "q8_0"], (None, None, "q8_0")),
    ],
)
def test_compiles(
    arguments: list[str],
    expected: tuple[Path | None, int | None, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def warmup(
        path: Path | None,
        *,
        n_threads: int | None,
        full_head: bool,
        cache_type: str,
        progress: Any,
    ) -> None:
        assert not full_head
        progress(1, 1)
        calls.append((path, n_threads, cache_type))

    monkeypatch.setattr(fake_program, "warmup", warmup)
    done = run("warmup", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "All kernels are compiled.\n", "")
    assert calls == [expected]


def test_all_and_a_model_exclude_each_other() -> None:
    done = run("warmup", "x.gguf", "--all")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--all is for every model: leave out MODEL, or --all" in done.stderr
