"""Memory is bounded by a few chunks, whatever the size of the model and of its largest tensor."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeqwen.quant import quantize
from tests.hf_checkpoints import safetensors_header, tensor_shapes, write_checkpoint

ALLOWED = 48 << 20
needs_peak = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux can reset the peak"
)

# Prints how far memory rose above what was there before. Linux counts mapped pages of files, too:
# what was read must have been let go of. The first conversion compiles the kernels.
PROGRAM = """
import re, sys
from edgeqwen.quant import quantize

def memory(key):
    with open("/proc/self/status") as file:
        return int(re.search(rf"^{key}:\\s+(\\d+) kB", file.read(), re.M)[1]) << 10

small, large, output, type, pad_ffn = sys.argv[1:]
options = {"pad_ffn": pad_ffn == "True", "n_threads": 2}
quantize(small, output, type, **options)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = memory("VmRSS")
quantize(large, output, type, **options)
print(memory("VmHWM") - before)
"""


def rise(small: Path, large: Path, output: Path, type: str, *, pad_ffn: bool = False) -> int:
    command = [sys.executable, "-c", PROGRAM, *map(str, (small, large, output, type, pad_ffn))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(result.stdout)


def zeros(folder: Path, vocab_size: int, ffn: int = 4096) -> Path:
    """Writes a checkpoint of 1024 x 12 layers, 250 MB, whose weights take no room on the disk."""
    sizes = {"hidden_size": 1024, "intermediate_size": ffn, "num_hidden_layers": 12}
    write_checkpoint(folder, n_layers=1, config={**sizes, "vocab_size": vocab_size})
    shapes = tensor_shapes(12, 1024, ffn, 4, 2, 256, vocab_size, tied=True)
    sized = {name: ("BF16", shape, 2 * math.prod(shape)) for name, shape in shapes.items()}
    with open(folder / "model.safetensors", "wb") as file:
        file.write(safetensors_header(sized))
        file.truncate(file.tell() + sum(n_bytes for _, _, n_bytes in sized.values()))
    return folder


@needs_peak
def test_peak(tmp_path: Path) -> None:
    small = write_checkpoint(tmp_path / "small", n_layers=1)
    # 134 MB of it are the embedding.
    large = zeros(tmp_path / "large", 65536)
    assert (large / "model.safetensors").stat().st_size > 8 * ALLOWED
    assert rise(small, large, tmp_path / "x.gguf", "q4_0") < ALLOWED


@needs_peak
def test_peak_with_padding(tmp_path: Path) -> None:
    small = write_checkpoint(tmp_path / "small", n_layers=1)
    large = zeros(tmp_path / "large", 2048, ffn=4128)
    assert (large / "model.safetensors").stat().st_size > 7 * ALLOWED
    assert rise(small, large, tmp_path / "x.gguf", "q8_0", pad_ffn=True) < ALLOWED


@needs_peak
def test_peak_from_gguf(tmp_path: Path) -> None:
    # GgufFile lets go of whole tensors: here, none is large.
    small, large = tmp_path / "small.gguf", tmp_path / "large.gguf"
    quantize(write_checkpoint(tmp_path / "small", n_layers=1), small, "f16")
    quantize(zeros(tmp_path / "large", 2048), large, "f16")
    assert large.stat().st_size > 7 * ALLOWED
    assert rise(small, large, tmp_path / "x.gguf", "q4_0") < ALLOWED
