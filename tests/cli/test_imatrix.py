"""``edgeqwen imatrix``: what it reads, what it writes, and what is kept when it is stopped."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeqwen
from edgeqwen import api
from edgeqwen.importance import collect
from edgeqwen.quant.imatrix import Imatrix
from edgeqwen.quant.imatrix_parts import Entry
from tests.cli import fake_program
from tests.cli.running import ROOT, environment, run
from tests.engines import F32_CACHE, write_model

TEXT = "the sky is blue, and the world is wide. " * 8
Q = "blk.0.attn_q.weight"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("imatrix") / "model.gguf"
    return write_model(path, n_layers=1, tied=False, max_context=600, **F32_CACHE)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(autouse=True)
def _real_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_program, "load", api.load)


def same(found: Imatrix, expected: Imatrix) -> None:
    assert found.entries.keys() == expected.entries.keys()
    for name, entry in expected.entries.items():
        assert found.entries[name].count == entry.count
        np.testing.assert_array_equal(found.entries[name].in_sum2, entry.in_sum2)


def expected(path: Path, text: str = TEXT, **options: Any) -> Imatrix:
    with edgeqwen.load(path) as model:
        return collect(model, model.tokenizer.encode(text), **options)


def some(columns: int = 96, source: str = "a") -> Imatrix:
    entry = Entry(np.arange(columns, dtype=np.float32), 512)
    return Imatrix({Q: entry}, 1, 512, (source,))


def test_collects_from_a_text(path: Path, text: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"
    done = run("imatrix", path, "-f", text, "-o", output, "-c", "20")
    assert (done.returncode, done.stderr) == (0, "")
    found = Imatrix.read(output)
    same(found, expected(path, context=20))
    assert found.datasets == (str(text),)
    line, took = done.stdout.rsplit(", ", 1)
    n = found.chunk_count
    assert line == f"{output}: 7 matrices, {20 * n} tokens in {n} windows of 20"
    assert took.endswith(" s\n")
    assert n > 5


def test_options(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    special = "<|im_start|>user\nhello<|im_end|>\n"
    done = run(
        *("imatrix", path, "-f", "-", "-c", "6", "--chunks", "2", "--process-output", "-t", "1"),
        *("--special",),
        input=special * 4,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = Imatrix.read("imatrix.gguf")
    assert (found.chunk_count, found.chunk_size, found.datasets) == (2, 6, ())
    assert "output.weight" in found.entries
    with edgeqwen.load(path) as model:
        ids = model.tokenizer.encode(special * 4, allow_special=True)
        same(found, collect(model, ids, context=6, max_windows=2, output=True))


def test_the_window_is_of_512_tokens(path: Path, tmp_path: Path) -> None:
    text, output = tmp_path / "long.txt", tmp_path / "out.gguf"
    text.write_text(TEXT * 4)
    assert run("imatrix", path, "-f", text, "-o", output).returncode == 0
    assert Imatrix.read(output).chunk_size == 512


def test_files_are_added(path: Path, text: Path, tmp_path: Path) -> None:
    before, output = tmp_path / "before.gguf", tmp_path / "out.gguf"
    some().write(before)
    options = ("-c", "20", "--chunks", "1")
    done = run("imatrix", path, "-f", text, "-o", output, "--in", before, *options)
    assert done.returncode == 0, done.stderr
    found = Imatrix.read(output)
    same(found, expected(path, context=20, max_windows=1).merged([some()]))
    assert found.datasets == ("a", str(text))
    assert done.stdout.splitlines()[0] == (
        f"{before} says nothing of 6 of 9 matrices, the first is blk.0.attn_k.weight: their "
        "columns count alike"
    )
    # To go on with it, another file is written.
    more = tmp_path / "more.gguf"
    again = run("imatrix", path, "-f", text, "-o", more, "--in", output, *options)
    assert again.returncode == 0, again.stderr
    assert Imatrix.read(more).entries[Q].count == 512 + 2 * 20


def test_files_are_combined_without_a_model(tmp_path: Path) -> None:
    paths = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for path in paths:
        some(source=path.name).write(path)
    output = tmp_path / "out.gguf"
    code = (
        "import sys\n"
        "from edgeqwen.cli import main\n"
        "try: main()\n"
        "except SystemExit as leaving: print(leaving.code, 'numba' in sys.modules)\n"
    )
    words = ["imatrix", "--in", str(paths[0]), "--in", str(paths[1]), "-o", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (
        f"{output}: 1 matrices, 1024 tokens in 2 windows of 512\n0 False\n",
        "",
    )
    found = Imatrix.read(output)
    assert found.datasets == ("a.gguf", "b.gguf")
    np.testing.assert_array_equal(found.importance(Q), some().importance(Q))


def test_a_model_is_only_compared_with_files_to_combine(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_program, "load", None)
    one, output = tmp_path / "one.gguf", tmp_path / "out.gguf"
    some().write(one)
    done = run("imatrix", path, "--in", one, "-o", output)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{one} says nothing of 6 of 9 matrices, the first is blk.0.attn_k.weight: their columns "
        f"count alike\n{output}: 1 matrices, 512 tokens in 1 windows of 512\n"
    )
    output.unlink()
    other, none = tmp_path / "other.gguf", tmp_path / "none.gguf"
    some(columns=64).write(other)
    Imatrix({"blk.7.attn_q.weight": some().entries[Q]}, 1, 512).write(none)
    for model, file, message in (
        (path, other, f"{other}: {Q} has 64 columns, but 96 in {path}: it is another model's"),
        (path, none, f"{none}: says nothing of any matrix of {path}: it is another model's, or is"),
        (tmp_path / "gone.gguf", one, f"{tmp_path / 'gone.gguf'}: no such file"),
    ):
        done = run("imatrix", model, "--in", file, "-o", output)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"edgeqwen: {message}")
        assert not output.exists()


def ctrl_c_at(monkeypatch: pytest.MonkeyPatch, step: int, *, times: int = 1) -> None:
    """Presses Ctrl-C so many times at the end of one of the model's steps."""
    load, steps = api.load, iter(range(1000))

    def load_and_watch(path: Any, **options: Any) -> edgeqwen.Model:
        model = load(path, **options)
        observe = model.engine.observe

        def watched(*arguments: Any) -> None:
            observe(*arguments)
            if next(steps) == step:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

        model.engine.observe = watched  # type: ignore[method-assign]
        return model

    monkeypatch.setattr(fake_program, "load", load_and_watch)


def test_ctrl_c_keeps_what_was_collected(
    path: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.gguf"
    ctrl_c_at(monkeypatch, 2)
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    done = run("imatrix", path, "-f", text, "-o", output, "-c", "20")
    assert (done.returncode, done.stderr) == (130, "")
    assert signal.getsignal(signal.SIGINT) is on_ctrl_c
    assert f"{output}: 7 matrices, 60 tokens in 3 windows of 20" in done.stdout
    same(Imatrix.read(output), expected(path, context=20, max_windows=3))


def test_every_ten_windows_are_kept(
    path: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it ends at once, by a second Ctrl-C."""
    before, output = tmp_path / "before.gguf", tmp_path / "out.gguf"
    some().write(before)
    ctrl_c_at(monkeypatch, 12, times=2)
    done = run("imatrix", path, "-f", text, "-o", output, "-c", "4", "--in", before)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    same(Imatrix.read(output), expected(path, context=4, max_windows=10).merged([some()]))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "before.gguf", "out.gguf", "text.txt",
    ]  # fmt: skip
