"""What the small files of a Hugging Face folder become in GGUF metadata.

Source of the keys: the GGUF specification and the constants of the ``gguf`` package.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeqwen.config_keys import shown
from edgeqwen.errors import FileFormatError
from edgeqwen.quant.gguf_values import MetadataValue
from edgeqwen.quant.hf_vocabulary import Vocabulary, read_vocabulary
from edgeqwen.quant.json_file import MAX_JSON_BYTES, read_json, read_text

# The BOS token of the DeepSeek-R1 distillations, whose vocabulary is Qwen2's with other specials.
_DEEPSEEK_BOS = "<｜begin▁of▁sentence｜>"
_SAMPLING = {
    "temperature": ("temp", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "repetition_penalty": ("penalty_repeat", float),
}


def read_metadata(
    folder: Path, config: Mapping[str, Any], vocab_size: int
) -> dict[str, MetadataValue]:
    """Reads vocabulary, special tokens, chat template and sampling defaults of a folder.

    ``config`` is what config.json holds. Raises FileFormatError for files that are missing,
    damaged or contradict each other, UnsupportedError for tokenizers that differ from Qwen2's.
    """
    settings = _read_optional(folder / "tokenizer_config.json")
    generation = _read_optional(folder / "generation_config.json")
    vocabulary = read_vocabulary(folder, settings, vocab_size)
    special = _SpecialTokens(folder, vocabulary, settings, config, generation)
    return {
        **_sampling(folder / "generation_config.json", generation),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "deepseek-r1-qwen" if _DEEPSEEK_BOS in vocabulary.ids else "qwen2",
        "tokenizer.ggml.tokens": vocabulary.tokens,
        "tokenizer.ggml.token_type": vocabulary.types,
        "tokenizer.ggml.merges": vocabulary.merges,
        **special.metadata(),
        **_chat_templates(folder, settings),
    }


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


class _SpecialTokens:
    """Finds special tokens: by text in tokenizer_config.json, by id in the other files."""

    def __init__(
        self,
        folder: Path,
        vocabulary: Vocabulary,
        settings: Mapping[str, Any],
        config: Mapping[str, Any],
        generation: Mapping[str, Any],
    ) -> None:
        self._settings_path = folder / "tokenizer_config.json"
        self._folder = folder
        self._vocabulary = vocabulary
        self._settings = settings
        self._by_id = (
            (folder / "config.json", config),
            (folder / "generation_config.json", generation),
        )

    def metadata(self) -> dict[str, MetadataValue]:
        """Returns the keys for the end, padding and start of a text."""
        eos = self._named("eos") or self._numbered("eos")
        if not eos:
            raise FileFormatError(
                f"{self._folder}: no end-of-text token; expected eos_token in "
                "tokenizer_config.json or eos_token_id in config.json"
            )
        found = {"tokenizer.ggml.eos_token_id": eos[0]}
        pad = (self._named("pad") or self._numbered("pad"))[:1]
        if pad:
            found["tokenizer.ggml.padding_token_id"] = pad[0]
        bos = (self._named("bos") or self._numbered("bos"))[:1]
        if bos:
            found["tokenizer.ggml.bos_token_id"] = bos[0]
        # Chats may end with another token than texts do; padding is known to end them.
        others = [id_ for id_ in self._numbered("eos") if id_ not in (eos[0], *pad)]
        if others:
            found["tokenizer.ggml.eot_token_id"] = others[0]
        return {**found, "tokenizer.ggml.add_bos_token": self._adds_bos()}

    def _adds_bos(self) -> bool:
        value = self._settings.get("add_bos_token")
        if not isinstance(value, bool | None):
            raise FileFormatError(
                f"{self._settings_path}: add_bos_token is {shown(value)}, expected true or false"
            )
        return value is True

    def _named(self, kind: str) -> list[int]:
        key = f"{kind}_token"
        value = self._settings.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        if text is None:
            return []
        if not isinstance(text, str) or text not in self._vocabulary.ids:
            raise FileFormatError(
                f"{self._settings_path}: {key} is {shown(text)}, which is no token of the "
                "vocabulary"
            )
        return [self._vocabulary.ids[text]]

    def _numbered(self, kind: str) -> list[int]:
        key, found = f"{kind}_token_id", []
        for path, content in self._by_id:
            value = content.get(key)
            for id_ in value if isinstance(value, list) else [value]:
                if id_ is None:
                    continue
                if type(id_) is not int or not 0 <= id_ < len(self._vocabulary.tokens):
                    raise FileFormatError(
                        f"{path}: {key} is {shown(id_)}, expected a token id from 0 to "
                        f"{len(self._vocabulary.tokens) - 1}"
                    )
                found.append(id_)
        return found


def _sampling(path: Path, generation: Mapping[str, Any]) -> dict[str, MetadataValue]:
    """Returns the sampling defaults; temperature 0 where the checkpoint asks for no sampling."""
    found: dict[str, MetadataValue] = {}
    if generation.get("do_sample") is False:
        generation = {**generation, "temperature": 0.0}
    for key, (name, kind) in _SAMPLING.items():
        value = generation.get(key)
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not 0 <= value < 2**31 or kind(value) != value:
            raise FileFormatError(
                f"{path}: {key} is {shown(value)}, expected a "
                f"{'whole ' if kind is int else ''}number of at least 0"
            )
        found[f"general.sampling.{name}"] = kind(value)
    return found


def _chat_templates(folder: Path, settings: Mapping[str, Any]) -> dict[str, MetadataValue]:
    """Returns the chat template, and others by name where there are several."""
    templates = _templates_in_settings(folder / "tokenizer_config.json", settings)
    # A file of its own wins, as it does in transformers.
    if (folder / "chat_template.jinja").exists():
        templates["default"] = read_text(folder / "chat_template.jinja", MAX_JSON_BYTES)
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[_template_name(path.stem)] = read_text(path, MAX_JSON_BYTES)
    found: dict[str, MetadataValue] = {}
    if "default" in templates:
        found["tokenizer.chat_template"] = templates.pop("default")
    if templates:
        found["tokenizer.chat_templates"] = list(templates)
    for name, template in templates.items():
        found[f"tokenizer.chat_template.{name}"] = template
    return found


def _templates_in_settings(path: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    value = settings.get("chat_template")
    if value is None:
        return {}
    entries = value if isinstance(value, list) else [{"name": "default", "template": value}]
    templates: dict[str, str] = {}
    for entry in entries:
        pair = entry if isinstance(entry, dict) else {}
        name, template = pair.get("name"), pair.get("template")
        if not isinstance(name, str) or not isinstance(template, str):
            raise FileFormatError(
                f"{path}: chat_template holds {shown(entry)}, expected a text, or names and texts"
            )
        if _template_name(name) in templates:
            raise FileFormatError(f"{path}: two chat templates are named {shown(name)}")
        templates[_template_name(name)] = _sayable(path, template)
    return templates


def _template_name(name: str) -> str:
    # The name becomes part of a key.
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name[:60]) or "_"


def _sayable(path: Path, template: str) -> str:
    if any("\ud800" <= c <= "\udfff" for c in template):
        raise FileFormatError(f"{path}: chat_template holds half of a surrogate pair")
    return template
