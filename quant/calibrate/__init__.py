"""Calibration: rounding that makes up for its own errors on a text, layer by layer.

Plain quantization rounds each weight to the nearest level. Here, a matrix is rounded so that its
products with the activations of a text stay as they are: column by column, each column's error is
moved into the columns that follow (``rounding``), as far as the activations say that these can
make up for it (``statistics``). ``walk`` sends the text through the network, layer by layer, once
as the source has it and once as quantized so far: each layer then also makes up for the errors of
those before it. The result is a file of standard GGUF types, for any runtime.

Source of the method: GPTQ (Frantar et al., arXiv 2210.17323); errors of earlier layers are taken
in by aiming at the source's products instead of the quantized network's (GPTAQ, Li et al., arXiv
2504.02692).

Importing this package imports numba; ``edgeqwen.quant`` does so only when work begins.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.calibrate.store import CalibratedCheckpoint
from edgeqwen.quant.calibrate.walk import Calibration
from edgeqwen.quant.calibrate.workers import Workers
from edgeqwen.quant.calibrate.workspace import Workspace
from edgeqwen.quant.checkpoint import Checkpoint

__all__ = ["CalibratedCheckpoint", "calibrated"]


@contextlib.contextmanager
def calibrated(
    checkpoint: Checkpoint,
    types: Mapping[str, GgmlType],
    windows: npt.NDArray[np.int64],
    folder: Path,
    n_threads: int,
    progress: Callable[[int], None],
) -> Iterator[CalibratedCheckpoint]:
    """Gives the checkpoint with all matrices of its layers in their new types.

    ``types`` are by the GGUF names of tensors, ``windows`` token ids, int64 [windows][length];
    ``folder`` is where temporary files may lie, ``progress(done)`` gets the bytes encoded so far.
    Raises what conversion raises, and EdgeqwenError where the folder is full.
    """
    with Workspace(folder) as workspace:
        with Workers(n_threads) as workers:
            walk = Calibration(checkpoint, types, windows, workspace, workers, progress)
            result = walk.run()
        yield result
