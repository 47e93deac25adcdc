"""Models that nobody closes: their threads end before their memory goes."""

import subprocess
import sys
from pathlib import Path

from tests.gguf_samples import write_tiny_gguf

PROGRAM = """
import sys, threading
from edgeqwen.engine import Engine
from edgeqwen.gguf_file import GgufFile

with GgufFile.open(sys.argv[1]) as file:
    for _ in range(12):
        engine = Engine(file, n_threads=24, max_context=64)
        engine.logits(engine.new_sequence(), list(range(40)))
        del engine
print(threading.active_count())
"""


def test_a_forgotten_engine_ends_its_threads_first(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    write_tiny_gguf(model, types="Q4_0", hidden_size=128, n_heads=4, n_kv_heads=2)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model)], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr[-2000:]
