"""The text that perplexity is measured on by default: documents that the model never saw."""

from itertools import islice
from random import Random

from tools.guide_model.corpus import mixture
from tools.guide_model.rendering import parts

_N_DOCUMENTS = 300
_SEED = 2


def held_out_text() -> str:
    """Returns conversations and holes of the held-out side, as text with special tokens."""
    documents = islice(mixture.documents(Random(_SEED), "held_out"), _N_DOCUMENTS)
    return "".join(text for document in documents for text, _ in parts(document))
