"""Tiles lie in files: whoever changes how they are laid out must say so."""

import hashlib

import numpy as np
import pytest

from edgeqwen.formats import FORMATS
from edgeqwen.formats.screened import SCREENED
from edgeqwen.gguf_packed import LAYOUT_VERSION
from tests.formats.packing import blocks_of, pack

# Of the tiles that all formats make of the same bytes, by the version of their layouts.
DIGESTS = {1: "e05cbe70676763601253f37fd57ea77819c564f4d49498babbe3d69e1a71e043"}


@pytest.mark.thorough
def test_a_change_of_layout_is_a_new_version() -> None:
    digest = hashlib.sha256()
    for format_ in sorted(FORMATS.values(), key=lambda f: f.name):
        tiles = pack(format_, blocks_of(format_, 37, 3))
        digest.update(format_.name.encode() + np.ascontiguousarray(tiles).tobytes())
    for format_ in sorted(SCREENED.values(), key=lambda f: f.name):
        # With what lies apart, before the tiles.
        tiles = pack(format_, blocks_of(format_, 37, 3))
        memory = tiles.base
        assert memory is not None
        assert memory.nbytes > tiles.nbytes
        digest.update(format_.name.encode() + memory.tobytes())
    assert max(DIGESTS) == LAYOUT_VERSION
    assert digest.hexdigest() == DIGESTS[LAYOUT_VERSION], (
        "the tiles of some format have changed: LAYOUT_VERSION must grow, and get its digest here"
    )
