"""The text that the built-in model is calibrated on: of its training's kind, none of it held out.

It is generated from a seed of its own, by what generates the training: no example of the held-out
text, on which results are measured, can be in it.
"""

from random import Random

from edgeqwen.text.tokenizer import Tokenizer
from tools.guide_model.corpus import mixture
from tools.guide_model.rendering import parts, writes_of_marks

SEED = 3  # the training's is 1, the held-out text's 2


def training_text(tokenizer: Tokenizer, n_tokens: int) -> tuple[str, list[int]]:
    """Returns a text of whole documents and its tokens, as a text with special tokens is read.

    There are ``n_tokens`` of them, or a few more for the end of the last document. As in the
    held-out text, no document writes about special tokens: they would be taken for ones.
    """
    documents = (d for d in mixture.documents(Random(SEED), "train") if not writes_of_marks(d))
    text: list[str] = []
    n_found = 0
    while n_found < n_tokens:
        text.append("".join(piece.text for piece in parts(next(documents))))
        n_found += len(tokenizer.encode(text[-1], allow_special=True))
    whole = "".join(text)
    return whole, tokenizer.encode(whole, allow_special=True)
