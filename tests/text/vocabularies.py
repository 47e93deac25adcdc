"""Vocabulary-only GGUF files and vocabularies in memory: a small trained one, and the real one."""

import functools
import json
from pathlib import Path
from typing import Any

from edgeqwen.text.tokenizer import Tokenizer
from edgeqwen.text.vocabulary import Vocabulary
from tests.gguf_samples import write_gguf
from tests.hf_tokenizers import NOT_SPECIAL, SPECIAL, tokenizer_files

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
N_PADDING = 5


@functools.cache
def tokens_and_merges(kind: str = "small") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the ordinary tokens and the merges; "real" skips the test where ../shared is absent.

    The special tokens of Qwen2.5 have the ids that follow.
    """
    model = json.loads(tokenizer_files(kind)[0]["tokenizer.json"])["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tuple(tokens), tuple(" ".join(merge) for merge in model["merges"])


def vocab_metadata(kind: str = "small", **changes: Any) -> dict[str, Any]:
    """Returns ``tokenizer.ggml.*`` of a vocabulary with Qwen2.5's special tokens and some padding.

    ``changes`` replace keys, by their last part (``eos_token_id=3``), or remove them with None.
    """
    tokens, merges = tokens_and_merges(kind)
    n, n_special = len(tokens), len(SPECIAL) + len(NOT_SPECIAL)
    all_tokens = [*tokens, *SPECIAL, *NOT_SPECIAL]
    all_tokens += [f"[PAD{n + n_special + i}]" for i in range(N_PADDING)]
    metadata = {
        "model": "gpt2",
        "pre": "qwen2",
        "tokens": all_tokens,
        "token_type": [NORMAL] * n
        + [CONTROL] * len(SPECIAL)
        + [USER_DEFINED] * len(NOT_SPECIAL)
        + [UNUSED] * N_PADDING,
        "merges": list(merges),
        "eos_token_id": all_tokens.index("<|im_end|>"),
        "padding_token_id": all_tokens.index("<|endoftext|>"),
        "bos_token_id": all_tokens.index("<|endoftext|>"),
        **changes,
    }
    return {
        "general.architecture": "qwen2",
        **{f"tokenizer.ggml.{key}": value for key, value in metadata.items() if value is not None},
    }


def write_vocab_gguf(path: str | Path, *, chat_template: Any = None, **changes: Any) -> None:
    """Writes a GGUF file that holds only the small vocabulary, changed as in ``vocab_metadata``."""
    metadata = vocab_metadata(**changes)
    if chat_template is not None:
        metadata["tokenizer.chat_template"] = chat_template
    write_gguf(path, metadata, {})


@functools.cache
def tokenizer(kind: str = "small") -> Tokenizer:
    """Returns the tokenizer of such a vocabulary, without a file."""
    return Tokenizer(Vocabulary.from_gguf(vocab_metadata(kind), source="test.gguf"))
