"""The text that perplexity is measured on by default: documents that the model never saw."""

from itertools import islice
from random import Random

from tools.guide_model.corpus import mixture
from tools.guide_model.rendering import parts, writes_of_marks

_N_DOCUMENTS = 300
_SEED = 2


def held_out_text() -> str:
    """Returns conversations and holes of the held-out side, as text with special tokens.

    In a text, a mark that is written about looks like one that is meant: documents with such are
    left out.
    """
    all_documents = mixture.documents(Random(_SEED), "held_out")
    documents = islice((d for d in all_documents if not writes_of_marks(d)), _N_DOCUMENTS)
    return "".join(piece.text for document in documents for piece in parts(document))
