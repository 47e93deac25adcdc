"""The Qwen2 architecture in PyTorch, as small and fast to train on a CPU as it can be said."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of the network: those of Qwen2.5, only smaller.

    Rows of every matrix are multiples of 256 long, so that every block format applies.
    """

    vocab_size: int = 3072
    hidden_size: int = 256
    intermediate_size: int = 512
    n_layers: int = 7
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 64
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    max_context: int = 2048


class Attention(nn.Module):
    """Attention with grouped key/value heads, a bias on q, k and v, and rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        # q, k and v are one matrix here and three in the checkpoint.
        n_rows = (shape.n_heads + 2 * shape.n_kv_heads) * shape.head_dim
        self.qkv_proj = nn.Linear(shape.hidden_size, n_rows)
        self.o_proj = nn.Linear(shape.n_heads * shape.head_dim, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Takes and returns [batch, length, hidden_size]; cos and sin are [length, head_dim]."""
        batch, length, _ = x.shape
        n, n_kv, dim = self.shape.n_heads, self.shape.n_kv_heads, self.shape.head_dim
        heads = self.qkv_proj(x).view(batch, length, n + 2 * n_kv, dim).transpose(1, 2)
        rotated = rotate(heads[:, : n + n_kv], cos, sin)
        q, k, v = rotated[:, :n], rotated[:, n:], heads[:, n + n_kv :]
        k = k.repeat_interleave(n // n_kv, dim=1)
        v = v.repeat_interleave(n // n_kv, dim=1)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, n * dim))


class Mlp(nn.Module):
    """SwiGLU; gate and up are one matrix here and two in the checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(shape.hidden_size, 2 * shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Takes and returns [batch, length, hidden_size]."""
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(functional.silu(gate) * up)


class Layer(nn.Module):
    """One transformer layer, normalised before attention and before the MLP."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.mlp = Mlp(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Takes and returns [batch, length, hidden_size]."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Network(nn.Module):
    """Token ids in, hidden states out; the embedding is the output matrix too."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.n_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                # Every layer begins as the identity.
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(
                    parameter, std=0.02 if "embed" in name else parameter.shape[1] ** -0.5
                )

    def forward(self, tokens: Tensor) -> Tensor:
        """Takes int64 [batch, length], returns float32 [batch, length, hidden_size]."""
        cos, sin = rotations(self.shape, tokens.shape[1])
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns [..., vocab_size] for hidden states [..., hidden_size]."""
        return functional.linear(hidden, self.embed_tokens.weight)


def rotations(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines of the first positions: float32 [length, head_dim]."""
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float64), shape.rope_theta**-exponents)
    both = torch.cat((angles, angles), dim=-1)
    return both.cos().float(), both.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns [batch, heads, length, head_dim] to its positions, in the order of halves."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
