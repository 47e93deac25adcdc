"""Checkpoints with random damage: each is converted or refused with a message, never a crash."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeqwen.errors import EdgeqwenError
from edgeqwen.gguf_file import GgufFile
from edgeqwen.quant import quantize
from tests.hf_checkpoints import write_checkpoint

SMALL: dict[str, Any] = {
    "n_layers": 1, "hidden_size": 32, "intermediate_size": 32, "n_heads": 2, "n_kv_heads": 1,
}  # fmt: skip
# What a damaged or malicious file may hold in place of anything else.
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1, 7, 2**31, 2**32, 2**63, 2**64]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["", "\ud800", "../x", "a b", "<|im_end|>", "\x00", "é"]),
    st.lists(st.integers(-3, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(-3, 3), max_size=2),
)


@pytest.fixture(scope="module", params=["small", "small-slow"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile")
    write_checkpoint(path / "a", tokenizer=request.param, sharded=True, **SMALL)
    shutil.copytree(path / "a", path / "whole")
    return path / "a"


def convert(folder: Path) -> None:
    """Converts to a file that must then be sound, or is refused without a trace."""
    output = folder.parent / "x.gguf"
    try:
        quantize(folder, output, "q8_0", n_threads=1)
    except EdgeqwenError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 1000
        assert not output.exists()
        return
    with GgufFile.open(output) as file:
        file.config()
    output.unlink()


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields every container inside a JSON value with each of its keys or indexes."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_values(folder: Path, data: st.DataObject) -> None:
    names = [p.name for p in folder.iterdir() if p.suffix == ".json"]
    path = folder / data.draw(st.sampled_from(sorted(names)))
    content = json.loads(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 2))):
        found = list(places(content))
        # Long lists would drown everything else: half of the damage is near the top.
        near = data.draw(st.booleans())
        container, key = found[
            data.draw(st.integers(0, min(len(found), 40 if near else 10**9) - 1))
        ]
        if data.draw(st.booleans()):
            container[key] = data.draw(VALUES)
        else:
            del container[key]
        if not content:
            break
    path.write_text(json.dumps(content), encoding="utf-8")
    convert(folder)
    shutil.copy(folder.parent / "whole" / path.name, path)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_bytes(folder: Path, data: st.DataObject) -> None:
    path = folder / data.draw(st.sampled_from(sorted(p.name for p in folder.iterdir())))
    content = bytearray(path.read_bytes())
    # The head of a file is where the damage does most.
    end = min(len(content), 2000 if data.draw(st.booleans()) else len(content))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(end, len(content)) - 1))
        change = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if change == "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "cut":
            del content[max(at, 1) :]
        else:
            content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    path.write_bytes(content)
    convert(folder)
    shutil.copy(folder.parent / "whole" / path.name, path)
