"""Special tokens, sampling defaults and chat templates of a Hugging Face folder, as GGUF keys."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgeqwen.errors import FileFormatError
from edgeqwen.quant.gguf_values import MetadataValue
from edgeqwen.quant.hf_metadata import read_metadata
from tests.hf_tokenizers import CHAT_TEMPLATE, tokenizer_files

END, TEXT_END, PAD = "<|im_end|>", "<|endoftext|>", "<|fim_pad|>"


class Folder:
    """A folder with the small tokenizer, whose settings can be changed one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        files, n_tokens = tokenizer_files("small")
        for name, text in files.items():
            (path / name).write_text(text, encoding="utf-8")
        self.first = n_tokens - 22

    def change(self, name: str, **values: Any) -> None:
        path = self.path / name
        content = {**json.loads(path.read_text(encoding="utf-8")), **values}
        content = {key: value for key, value in content.items() if value != "absent"}
        path.write_text(json.dumps(content), encoding="utf-8")

    def read(self, **config: Any) -> dict[str, MetadataValue]:
        return read_metadata(self.path, config, 448)

    def tokens(self, **config: Any) -> dict[str, MetadataValue]:
        found = self.read(**config)
        start = "tokenizer.ggml."
        return {k.removeprefix(start): v for k, v in found.items() if k.endswith("_token_id")}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_instruct(folder: Folder) -> None:
    found = folder.read()
    assert found["tokenizer.ggml.model"] == "gpt2"
    assert found["tokenizer.ggml.pre"] == "qwen2"
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.chat_template"] == CHAT_TEMPLATE
    assert found["general.sampling.temp"] == 0.7
    assert found["general.sampling.top_p"] == 0.8
    assert found["general.sampling.top_k"] == 20
    assert found["general.sampling.penalty_repeat"] == 1.05
    assert folder.tokens() == {
        "eos_token_id": folder.first + 2,
        "padding_token_id": folder.first,
        "bos_token_id": folder.first,
    }


def test_ids_come_from_wherever_they_stand(folder: Folder) -> None:
    first = folder.first
    folder.change("tokenizer_config.json", eos_token={"content": TEXT_END}, pad_token=PAD)
    assert folder.tokens()["eos_token_id"] == first
    assert folder.tokens()["padding_token_id"] == first + 19
    # The chat's end differs from the text's end: neither is lost.
    assert folder.tokens()["eot_token_id"] == first + 2
    folder.change("tokenizer_config.json", eos_token="absent", pad_token=None)
    assert folder.tokens(eos_token_id=7, pad_token_id=8)["eos_token_id"] == 7
    assert folder.tokens(eos_token_id=7, pad_token_id=8)["padding_token_id"] == 8
    assert folder.tokens()["eos_token_id"] == first + 2
    folder.change("generation_config.json", eos_token_id=None, bos_token_id=None)
    assert "bos_token_id" not in folder.tokens(eos_token_id=[9, 10])
    assert folder.tokens(eos_token_id=[9, 10])["eos_token_id"] == 9
    assert folder.tokens(eos_token_id=[9, 10])["eot_token_id"] == 10


def test_add_bos_token(folder: Folder) -> None:
    folder.change("tokenizer_config.json", add_bos_token=True)
    assert folder.read()["tokenizer.ggml.add_bos_token"] is True
    folder.change("tokenizer_config.json", add_bos_token="absent")
    assert folder.read()["tokenizer.ggml.add_bos_token"] is False
    folder.change("tokenizer_config.json", add_bos_token="yes")
    with pytest.raises(FileFormatError, match="add_bos_token is 'yes', expected true or false"):
        folder.read()


def test_no_end_of_text(folder: Folder) -> None:
    folder.change("tokenizer_config.json", eos_token="absent")
    (folder.path / "generation_config.json").unlink()
    with pytest.raises(FileFormatError, match="no end-of-text token; expected eos_token in"):
        folder.read()


@pytest.mark.parametrize("value", ["<|gone|>", 5, {"content": 5}, ["a"]])
def test_special_tokens_that_do_not_exist(folder: Folder, value: Any) -> None:
    folder.change("tokenizer_config.json", eos_token=value)
    with pytest.raises(FileFormatError, match=r"eos_token is .*, which is no token of the"):
        folder.read()


@pytest.mark.parametrize("value", [448, -1, "5", True, [1, 448], 1.5, {}])
def test_ids_that_do_not_exist(folder: Folder, value: Any) -> None:
    with pytest.raises(FileFormatError, match=r"eos_token_id is .*, expected a token id from 0 to"):
        folder.read(eos_token_id=value)


def test_a_checkpoint_without_sampling_is_greedy(folder: Folder) -> None:
    folder.change("generation_config.json", do_sample=False, repetition_penalty=1.1)
    metadata = folder.read()
    assert metadata["general.sampling.temp"] == 0
    assert metadata["general.sampling.penalty_repeat"] == 1.1


def test_without_a_generation_config_there_are_no_sampling_defaults(folder: Folder) -> None:
    (folder.path / "generation_config.json").unlink()
    assert not any(key.startswith("general.sampling") for key in folder.read())


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", "hot"), ("temperature", -1), ("top_p", float("nan")), ("top_k", 1.5),
     ("top_k", True), ("top_k", 1 << 31), ("repetition_penalty", float("inf")), ("min_p", [])],
)  # fmt: skip
def test_sampling_defaults_that_make_no_sense(folder: Folder, key: str, value: Any) -> None:
    folder.change("generation_config.json", **{key: value})
    with pytest.raises(FileFormatError, match=f"{key} is .*, expected a (whole )?number of at"):
        folder.read()


def test_template_in_a_file_of_its_own(folder: Folder) -> None:
    (folder.path / "chat_template.jinja").write_text("{{ 'ü' }}", encoding="utf-8")
    assert folder.read()["tokenizer.chat_template"] == "{{ 'ü' }}"


def test_several_templates(folder: Folder) -> None:
    named = [{"name": "default", "template": "D"}, {"name": "tool use", "template": "T"}]
    folder.change("tokenizer_config.json", chat_template=named)
    (folder.path / "additional_chat_templates").mkdir()
    (folder.path / "additional_chat_templates" / "rag.jinja").write_text("R")
    found = folder.read()
    assert found["tokenizer.chat_template"] == "D"
    assert found["tokenizer.chat_template.tool_use"] == "T"
    assert found["tokenizer.chat_template.rag"] == "R"
    assert found["tokenizer.chat_templates"] == ["tool_use", "rag"]


def test_no_template(folder: Folder) -> None:
    folder.change("tokenizer_config.json", chat_template="absent")
    assert "tokenizer.chat_template" not in folder.read()


@pytest.mark.parametrize("value", [5, {}, [5], [{"name": "x"}], [{"name": 1, "template": "x"}]])
def test_templates_that_are_none(folder: Folder, value: Any) -> None:
    folder.change("tokenizer_config.json", chat_template=value)
    with pytest.raises(FileFormatError, match=r"chat_template holds .*, expected a text, or names"):
        folder.read()


def test_template_that_utf8_can_not_say(folder: Folder) -> None:
    folder.change("tokenizer_config.json", chat_template="\ud800")
    with pytest.raises(FileFormatError, match="half of a surrogate pair"):
        folder.read()


def test_distillations_of_deepseek(folder: Folder) -> None:
    path = folder.path / "tokenizer.json"
    content = path.read_text(encoding="utf-8")
    path.write_text(content.replace(PAD, "<｜begin▁of▁sentence｜>"), encoding="utf-8")
    assert folder.read()["tokenizer.ggml.pre"] == "deepseek-r1-qwen"
