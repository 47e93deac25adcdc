"""A conversion that is interrupted leaves nothing under the final name."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeqwen.quant import quantize
from tests.hf_checkpoints import write_checkpoint

# Converts slowly and says when it is halfway.
PROGRAM = """
import sys, time
from edgeqwen.quant import quantize

def progress(done, total):
    if done > total // 3:
        print("halfway", flush=True)
        time.sleep(60)

quantize(sys.argv[1], sys.argv[2], "q8_0", progress=progress)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "a", vocab_size=20_000)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("when", [0.0, 0.5, 1.0])
def test_exception_in_progress(folder: Path, kind: type[BaseException], when: float) -> None:
    path = folder.parent / "x.gguf"
    path.write_bytes(b"before")

    def progress(done: int, total: int) -> None:
        if done >= when * total:
            raise kind

    with pytest.raises(kind):
        quantize(folder, path, "q8_0", progress=progress)
    assert path.read_bytes() == b"before"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["a", "x.gguf"]


def test_exception_in_a_thread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeqwen.quant import rows

    def fail(*args: object) -> bool:
        raise MemoryError

    monkeypatch.setattr(rows, "encode", fail)
    with pytest.raises(MemoryError):
        quantize(folder, folder.parent / "x.gguf", "q8_0")
    assert [p.name for p in folder.parent.iterdir()] == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_signals(folder: Path, number: signal.Signals) -> None:
    path = folder.parent / "x.gguf"
    command = [sys.executable, "-c", PROGRAM, str(folder), str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "halfway\n"
        process.send_signal(number)
        assert process.wait(30) != 0
    assert not path.exists()
    left = [p.name for p in folder.parent.iterdir() if p != folder]
    if number == signal.SIGINT:
        assert not left
    else:
        # Nobody can tidy up after SIGKILL; what is left is hidden and has another name.
        assert all(name.startswith(".x.gguf.") for name in left)
