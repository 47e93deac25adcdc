"""Training: it learns, it goes on where it was, and transformers reads what it writes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeqwen.quant import quantize

torch = pytest.importorskip("torch", reason="training needs PyTorch: pip install .[train]")

from tools.guide_model.dataset import Dataset, make_dataset  # noqa: E402
from tools.guide_model.export import write_checkpoint  # noqa: E402
from tools.guide_model.network import Network, Shape  # noqa: E402
from tools.guide_model.optimizer import orthogonalized  # noqa: E402
from tools.guide_model.train import Schedule, train  # noqa: E402
from tools.guide_model.vocabulary import train_tokenizer  # noqa: E402

pytestmark = pytest.mark.peers

_SHAPE = Shape(
    vocab_size=512, hidden_size=64, intermediate_size=64, n_layers=2, n_heads=2, n_kv_heads=1,
    head_dim=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return train_tokenizer(["the quick brown fox 1+2=3 " * 20], 512)


@pytest.fixture(scope="module")
def dataset(tokenizer) -> Dataset:  # type: ignore[no-untyped-def]
    *_, dataset = make_dataset(1, tokenizer, 6)
    return dataset


def test_an_interrupted_training_ends_with_the_same_bits(dataset: Dataset, tmp_path: Path) -> None:
    schedule = Schedule(n_steps=6, n_warmup=2)
    losses: list[float] = []
    whole = train(
        dataset,
        _SHAPE,
        schedule,
        tmp_path / "a.pt",
        lambda _, loss: losses.append(loss),
        save_every=2,
    )
    assert losses[-1] < losses[0] - 0.5

    def stop(step: int, loss: float) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(dataset, _SHAPE, schedule, tmp_path / "b.pt", stop, save_every=2)
    steps: list[int] = []
    resumed = train(
        dataset,
        _SHAPE,
        schedule,
        tmp_path / "b.pt",
        lambda step, _: steps.append(step),
        save_every=2,
    )
    assert steps == [4, 5]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_state_of_other_settings_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    schedule = Schedule(n_steps=1)
    train(dataset, _SHAPE, schedule, tmp_path / "state.pt", lambda *_: None)
    with pytest.raises(ValueError, match="other settings or another corpus; remove it"):
        train(dataset, _SHAPE, replace(schedule, seed=2), tmp_path / "state.pt", lambda *_: None)


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24)])
def test_orthogonalized_matrices_keep_their_singular_vectors(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = torch.linalg.svdvals(orthogonalized(matrices))
    assert found.min() > 0.3
    assert found.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    cosine = (orthogonalized(matrices) * (u @ v)).sum((1, 2)) / (
        orthogonalized(matrices).norm(dim=(1, 2)) * (u @ v).norm(dim=(1, 2))
    )
    assert cosine.min() > 0.95


def test_transformers_computes_the_same_from_the_checkpoint(tokenizer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    network = Network(_SHAPE)
    with torch.no_grad():
        for parameter in network.parameters():
            # What begins as zero would hide a mistake.
            parameter.add_(0.05 * torch.randn_like(parameter))
            parameter.copy_(parameter.half())
    write_checkpoint(tmp_path / "model", network, tokenizer)
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32
    )
    tokens = torch.arange(40)[None] * 7 % 500
    with torch.no_grad():
        expected = peer(tokens).logits
        found = network.logits(network(tokens))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=2e-4)

    peer_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "<|im_start|>user\n12+34 Grüße<|im_end|>\n"
    assert peer_tokenizer(text)["input_ids"] == tokenizer.encode(text).ids
    quantize(tmp_path / "model", tmp_path / "model.gguf", "q8_0")
