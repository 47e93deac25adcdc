"""Tiles lie in files: whoever changes how they are laid out must say so."""

import hashlib

import numpy as np
import pytest

from edgeqwen.formats import FORMATS
from edgeqwen.gguf_packed import LAYOUT_VERSION
from tests.formats.packing import blocks_of, pack

# Of the tiles that all formats make of the same bytes, by the version of their layouts.
DIGESTS = {1: "f337a822d2e5ad289ba32cee0bbe4b72bfb6bf2b59f0de1981ffbf2b15652785"}


@pytest.mark.thorough
def test_a_change_of_layout_is_a_new_version() -> None:
    digest = hashlib.sha256()
    for format_ in sorted(FORMATS.values(), key=lambda f: f.name):
        tiles = pack(format_, blocks_of(format_, 37, 3))
        digest.update(format_.name.encode() + np.ascontiguousarray(tiles).tobytes())
    assert max(DIGESTS) == LAYOUT_VERSION
    assert digest.hexdigest() == DIGESTS[LAYOUT_VERSION], (
        "the tiles of some format have changed: LAYOUT_VERSION must grow, and get its digest here"
    )
