"""Calibration's memory is bounded: by one part of a matrix's columns, and some rows."""

import math
import subprocess
import sys
from pathlib import Path

from tests.hf_checkpoints import safetensors_header, tensor_shapes, write_checkpoint
from tests.quant.test_convert_memory import needs_peak

# Prints how far memory rose above what was there before. Linux counts mapped pages of files, too:
# activations that were computed must have been let go of. The first conversion compiles kernels.
PROGRAM = """
import re, sys
from edgeqwen.quant import quantize
from edgeqwen.quant.calibrate import statistics

statistics.MOST_COLUMNS = 2048

def memory(key):
    with open("/proc/self/status") as file:
        return int(re.search(rf"^{key}:\\s+(\\d+) kB", file.read(), re.M)[1]) << 10

small, large, output = sys.argv[1:]
options = {"calibrate": "some text, " * 40000, "n_threads": 2}
quantize(small, output, calibrate_tokens=512, **options)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = memory("VmRSS")
quantize(large, output, calibrate_tokens=8192, **options)
print(memory("VmHWM") - before)
"""


@needs_peak
def test_peak(tmp_path: Path) -> None:
    ffn = 4 * 2048
    small = write_checkpoint(tmp_path / "small", n_layers=1)
    large = tmp_path / "large"
    config = {"hidden_size": 256, "intermediate_size": ffn, "num_hidden_layers": 1}
    write_checkpoint(large, n_layers=1, config=config)
    # Weights of zero, which take no room on the disk.
    shapes = tensor_shapes(1, 256, ffn, 4, 2, 64, 448, tied=True)
    sized = {name: ("BF16", shape, 2 * math.prod(shape)) for name, shape in shapes.items()}
    with open(large / "model.safetensors", "wb") as file:
        file.write(safetensors_header(sized))
        file.truncate(file.tell() + sum(n_bytes for _, _, n_bytes in sized.values()))
    command = [sys.executable, "-c", PROGRAM, *map(str, (small, large, tmp_path / "x.gguf"))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    # Both streams of the feed-forward size alone are 537 MB, the sums of all parts at once 134 MB;
    # a part takes 67 MB while it is computed, and batches of activations a little more.
    assert int(result.stdout) < 305e6, f"{int(result.stdout) / 1e6:.0f} MB"
