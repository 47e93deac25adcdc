"""Tokenizers for synthetic checkpoints: a small one, trained here, or the real vocabulary."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SHARED_VOCABULARY = (
    Path(__file__).resolve().parents[2] / "shared" / "data" / "ggml-vocab-qwen2.gguf"
)
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen2.5's added tokens in the order of their ids; those that count as special come first.
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
NOT_SPECIAL = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SENTENCES = (
    "The quick brown fox jumps over the lazy dog while the river runs to the sea.",
    "Why is the sky blue? Because the air scatters the blue light of the sun the most.",
    "She said that they'd rather walk home; it wasn't raining, and the evening was warm.",
    "def add(a, b):\n    return a + b\n\nfor i in range(10):\n    print(i, add(i, i))\n",
    "Über den Wolken muss die Freiheit wohl grenzenlos sein. Ça va très bien, merci.",
    "今天天气很好，我们去公园散步吧。猫が好きです。Привет, как дела?",
    "In 2024, 3.5 million people visited 1,234 museums: 42% more than before!",
)


@functools.cache
def tokenizer_files(kind: str) -> tuple[dict[str, str], int]:
    """Returns the tokenizer's files of a checkpoint by name, and the number of tokens.

    ``kind`` is "small", "small-slow" or "real", which skips the test where ../shared is absent.
    """
    if kind == "real":
        vocab, merges = _real_vocabulary()
    else:
        vocab, merges = _small_vocabulary()
    added = {
        len(vocab) + i: (text, text in SPECIAL) for i, text in enumerate(SPECIAL + NOT_SPECIAL)
    }
    n_tokens = len(vocab) + len(added)
    ids = {text: id_ for id_, (text, _) in added.items()}
    files = {
        "tokenizer_config.json": json.dumps(_settings(added), ensure_ascii=False, indent=1),
        "generation_config.json": json.dumps(
            {
                "bos_token_id": ids["<|endoftext|>"],
                "do_sample": True,
                "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
                "pad_token_id": ids["<|endoftext|>"],
                "repetition_penalty": 1.05,
                "temperature": 0.7,
                "top_k": 20,
                "top_p": 0.8,
            }
        ),
    }
    if kind == "small-slow":
        files["vocab.json"] = json.dumps(vocab, ensure_ascii=False)
        files["merges.txt"] = "\n".join(["#version: 0.2", *map(" ".join, merges), ""])
    else:
        content = _tokenizer(vocab, merges).to_str()
        files["tokenizer.json"] = _with_added(content, added)
    return files, n_tokens


def _tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _with_added(content: str, added: dict[int, tuple[str, bool]]) -> str:
    parsed = json.loads(content)
    parsed["added_tokens"] = [{"id": id_, **_entry(*token)} for id_, token in added.items()]
    return json.dumps(parsed, ensure_ascii=False)


def _entry(text: str, special: bool) -> dict[str, Any]:
    return {
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def _settings(added: dict[int, tuple[str, bool]]) -> dict[str, Any]:
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(id_): _entry(*token) for id_, token in added.items()},
        "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _small_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = _tokenizer({}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def _real_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    if not SHARED_VOCABULARY.is_file():
        pytest.skip("needs the real vocabulary in ../shared/data")
    from edgeqwen.gguf_file import GgufFile

    with GgufFile.open(SHARED_VOCABULARY) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
        merges = file.metadata["tokenizer.ggml.merges"]
    first_added = list(tokens).index("<|endoftext|>")
    vocab = {token: i for i, token in enumerate(tokens[:first_added])}
    return vocab, [tuple(merge.split(" ")) for merge in merges]
