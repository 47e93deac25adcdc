"""What tokens cost, counted from a model's matrices: bytes to read, products to do."""

from dataclasses import dataclass

from edgeqwen.cache.layout import CacheLayout
from edgeqwen.config import ModelConfig
from edgeqwen.model.weights import Weights


@dataclass(frozen=True, slots=True)
class Work:
    """What no implementation of the same arithmetic can do without.

    - ``weight_bytes``: tiles that generating a token reads, those of the head included. Norms,
      biases and the token's own embedding, less than a thousandth of it, aren't counted.
    - ``integer_macs``, ``float_macs``: multiply-accumulates of a token in the layers' matrix
      products, where activations are int8, and where they are float32. The head's, which reading a
      prompt has for one token in 256 or fewer, aren't counted.
    - ``cache_bytes``: the keys and values of one position.
    - ``attention_macs``: multiply-accumulates of a token, in float32, for each position it sees.
    """

    weight_bytes: int
    integer_macs: int
    float_macs: int
    cache_bytes: int
    attention_macs: int


def count_work(config: ModelConfig, weights: Weights, layout: CacheLayout) -> Work:
    """Returns what a token costs with these weights and this cache."""
    matrices = [
        matrix
        for layer in weights.layers
        for matrix in (*layer.qkv, layer.o_proj, *layer.gate_up, layer.down_proj)
    ]
    macs = {True: 0, False: 0}
    for matrix in matrices:
        macs[matrix.format.integer_activations] += matrix.n_rows * matrix.n_columns
    return Work(
        weight_bytes=sum(matrix.n_bytes for matrix in (*matrices, weights.head)),
        integer_macs=macs[True],
        float_macs=macs[False],
        cache_bytes=layout.bytes_per_token,
        attention_macs=2 * config.n_layers * config.n_heads * config.head_dim,
    )
