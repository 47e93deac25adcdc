"""The pages for users: links lead somewhere, every command is named, and sizes are true."""

import math
import re
from pathlib import Path

import pytest

from edgeqwen.cli.app import app
from edgeqwen.config import ModelConfig
from edgeqwen.quant import TYPES
from edgeqwen.quant.recipe import fitting, recipe_named

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_page_for_scripts_names_every_command() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for command in app.registered_commands:
        assert f"| `edgeqwen {command.name} " in page


def test_bits_and_sizes_of_all_types_are_those_of_the_7b() -> None:
    config = ModelConfig(
        architecture="qwen2",
        name="Qwen2.5-7B",
        n_layers=28,
        hidden_size=3584,
        intermediate_size=18944,
        vocab_size=152064,
        n_heads=28,
        n_kv_heads=4,
        head_dim=128,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        max_context=32768,
        tie_word_embeddings=False,
    )
    shapes = config.expected_tensors()
    n_weights = sum(map(math.prod, shapes.values()))
    expected = []
    for name in TYPES:
        recipe = recipe_named(name)
        n_bytes = sum(
            fitting(recipe.wanted(tensor, shape, config), shape[-1]).n_bytes(shape)
            for tensor, shape in shapes.items()
        )
        expected.append((name, f"{8 * n_bytes / n_weights:.2f}", f"{n_bytes / 1e9:.2f}"))
    page = (ROOT / "docs" / "quantize.md").read_text("utf-8")
    assert re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|", page, re.MULTILINE) == expected
