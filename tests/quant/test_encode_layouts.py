"""Every bit of every block type lies where readers look for it, whatever the scales and codes."""

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from edgeqwen.ggml_types import GgmlType
from edgeqwen.quant.encode.layouts import Fit
from edgeqwen.quant.encode.schemes import SCHEMES, Scheme
from tests.oracles.encoders import decode

Bytes = npt.NDArray[np.uint8]

N_BLOCKS = 40
CASES = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.type.name)


def n_codes(scheme: Scheme) -> int:
    return len(scheme.codebook) or scheme.highest - scheme.lowest + 1


def halves(rng: np.random.Generator, n: int) -> npt.NDArray[np.float16]:
    """Finite numbers of both signs and any size, the largest and denormal ones too."""
    bits = rng.integers(0, 0x7C00, n, np.uint16) | rng.integers(0, 2, n, np.uint16) << 15
    found = bits.astype(np.uint16).view(np.float16)
    found[:6] = 65504, -65504, 6e-8, -6e-8, 0, -0.0
    return found


def fit_of(scheme: Scheme, scale_codes: str, seed: int) -> Fit:
    """Returns a fit with random factors; ``scale_codes``: "any", or the lowest or highest."""
    rng = np.random.default_rng(seed)
    d, dmin = halves(rng, N_BLOCKS), halves(rng, N_BLOCKS)
    if scheme.multiples is None:
        minima = -dmin.astype(np.float32) if scheme.has_minima else None
        return Fit(d.astype(np.float32), minima, d, dmin if scheme.has_minima else None)
    lowest, highest = scheme.multiples
    if scale_codes == "lowest":
        highest = lowest
    elif scale_codes == "highest":
        lowest = highest
    codes = rng.integers(lowest, highest + 1, (2, N_BLOCKS * scheme.groups)).astype(np.int16)
    scales = np.repeat(d.astype(np.float32), scheme.groups) * codes[0]
    if not scheme.has_minima:
        return Fit(scales, None, d, scale_codes=codes[0])
    if scale_codes == "lowest":  # the scales alone: what spills over into minima is seen
        codes[1] = scheme.multiples[1]
    minima = np.repeat(dmin.astype(np.float32), scheme.groups) * codes[1]
    return Fit(scales, minima, d, dmin, codes[0], codes[1])


def written(scheme: Scheme, fit: Fit, codes: Bytes) -> Bytes:
    """Writes blocks into a room of odd strides, between canaries, and returns them."""
    size = scheme.type.type_size
    room = np.full((N_BLOCKS, size + 7), 0xA5, np.uint8)
    scheme.write(fit, codes, room[:, 3 : 3 + size])
    assert (room[:, :3] == 0xA5).all()
    assert (room[:, 3 + size :] == 0xA5).all()
    return np.ascontiguousarray(room[:, 3 : 3 + size])


def read(type: GgmlType, blocks: Bytes) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        found = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(int(type)))
    return np.asarray(found, np.float32)


@CASES
@pytest.mark.parametrize("scale_codes", ["any", "lowest", "highest"])
@pytest.mark.parametrize("which", ["any", "first", "last"])
def test_what_is_written_is_read(scheme: Scheme, scale_codes: str, which: str) -> None:
    shape = N_BLOCKS, scheme.type.block_size
    first, last = 0, n_codes(scheme)
    if which == "first":
        last = 1
    elif which == "last":
        first = last - 1
    codes = np.random.default_rng(7).integers(first, last, shape, np.uint8)
    fit = fit_of(scheme, scale_codes, seed=3)
    with np.errstate(over="ignore"):
        expected = decode(scheme, fit, codes).reshape(shape)
    found = read(scheme.type, written(scheme, fit, codes))
    np.testing.assert_array_equal(found, expected)


@CASES
def test_every_code_has_a_place_of_its_own(scheme: Scheme) -> None:
    """One code that differs changes the one weight that it stands for."""
    shape = N_BLOCKS, scheme.type.block_size
    fit = fit_of(scheme, "highest", seed=3)
    fit.d[:] = 1
    fit.scales[:] = 1 if scheme.multiples is None else scheme.multiples[1]
    for start in range(0, scheme.type.block_size, N_BLOCKS):
        codes = np.zeros(shape, np.uint8)
        before = read(scheme.type, written(scheme, fit, codes))
        places = range(start, min(start + N_BLOCKS, scheme.type.block_size))
        for block, place in enumerate(places):
            codes[block, place] = n_codes(scheme) - 1
        after = read(scheme.type, written(scheme, fit, codes))
        assert {tuple(at) for at in np.argwhere(before != after).tolist()} == set(enumerate(places))


@CASES
def test_factors_stand_where_damage_is_looked_for(scheme: Scheme) -> None:
    fit = fit_of(scheme, "any", seed=4)
    codes = np.zeros((N_BLOCKS, scheme.type.block_size), np.uint8)
    blocks = written(scheme, fit, codes)
    stored = [blocks[:, at : at + 2].copy().view(np.float16)[:, 0] for at in scheme.factors]
    wanted = [values for values in (fit.d, fit.dmin) if values is not None]
    assert len(stored) == len(wanted)
    for one, other in zip(stored, wanted, strict=True):
        np.testing.assert_array_equal(one.view(np.uint16), other.view(np.uint16))
