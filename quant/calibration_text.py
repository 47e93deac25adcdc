"""The text that a model is calibrated on, as windows of tokens."""

import numpy as np
import numpy.typing as npt

from edgeqwen.errors import OptionError
from edgeqwen.options import positive_integer
from edgeqwen.quant.checkpoint import Checkpoint

# Enough to tell how the activations of a layer vary together, for rows as long as the 7B's.
MOST_TOKENS = 32768
_WINDOW = 512
_FEWEST_TOKENS = 64


def calibration_windows(text: str, checkpoint: Checkpoint, most: int) -> npt.NDArray[np.int64]:
    """Returns token ids, int64 [windows][length]: windows spread over the text, at most ``most``.

    In the text, ``<|im_start|>`` and the like are special tokens. Raises OptionError for a text
    that is too short.
    """
    from edgeqwen.text.tokenizer import Tokenizer
    from edgeqwen.text.vocabulary import Vocabulary

    most = max(positive_integer(most, "calibrate_tokens"), _FEWEST_TOKENS)
    source = str(checkpoint.files[0]) if checkpoint.files else "the source"
    # A GGUF source keeps arrays of numbers as they are; a vocabulary is read from sequences.
    metadata = {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in checkpoint.metadata.items()
    }
    tokenizer = Tokenizer(Vocabulary.from_gguf(metadata, source=source))
    tokens = np.array(tokenizer.encode(text, allow_special=True), np.int64)
    if len(tokens) < _FEWEST_TOKENS:
        raise OptionError(
            f"the text to calibrate with has {len(tokens)} tokens, expected at least "
            f"{_FEWEST_TOKENS}, and better {MOST_TOKENS}; give a longer one"
        )
    length = min(_WINDOW, checkpoint.config.max_context, len(tokens), most)
    there = len(tokens) // length
    wanted = max(1, min(there, most // length))
    starts = np.arange(wanted) * there // wanted * length
    windows: npt.NDArray[np.int64] = tokens[starts[:, None] + np.arange(length)]
    return windows
