"""The packed encoder computes real tokens only and gives what the padded BERT of transformers gives."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lgsrr import kernels
from lgsrr.encoder import EncoderConfig, PackedBert, Pooling, pack
from lgsrr.errors import EncoderError
from lgsrr.pretrained import encoder_folder, load_encoder, packed_state
from tests.tiny import write_tiny_bert

TINY = EncoderConfig(
    vocab_size=120, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
    max_position_embeddings=64,
)  # fmt: skip
Sequences = list[npt.NDArray[np.int64]]


def sequences(lengths: list[int], vocab_size: int = 120, seed: int = 0) -> Sequences:
    random = np.random.default_rng(seed)
    return [random.integers(1, vocab_size, size=n) for n in lengths]


def padded(rows: Sequences) -> tuple[Tensor, Tensor]:
    longest = max(len(r) for r in rows)
    ids = torch.stack([F.pad(torch.from_numpy(r), (0, longest - len(r))) for r in rows])
    mask = torch.stack([F.pad(torch.ones(len(r)), (0, longest - len(r))) for r in rows])
    return ids, mask


def pooled_by_transformers(model: torch.nn.Module, rows: Sequences, pooling: Pooling) -> Tensor:
    ids, mask = padded(rows)
    hidden: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
    if pooling == "cls":
        return hidden[:, 0]
    return (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def tiny_pair(pooling: Pooling = "mean") -> tuple[PackedBert, torch.nn.Module]:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = {k: getattr(TINY, k) for k in TINY.__dataclass_fields__}
    theirs = BertModel(BertConfig(**shape), add_pooling_layer=False).eval()
    ours = PackedBert(TINY, pooling)
    ours.load_state_dict(packed_state(dict(theirs.state_dict()), TINY.num_hidden_layers))
    return ours.eval(), theirs


MIXED = [5, 1, 17, 5, 40, 2, 17, 17, 33, 1]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("lengths", [MIXED, [7], [9, 9, 9], list(range(1, 30))])
def test_packed_equals_padded(pooling: Pooling, lengths: list[int]) -> None:
    ours, theirs = tiny_pair(pooling)
    rows = sequences(lengths)
    expected = pooled_by_transformers(theirs, rows, pooling)
    torch.testing.assert_close(ours(pack(rows)), expected, atol=1e-5, rtol=0)
    with torch.inference_mode():  # which takes another way through the kernels
        torch.testing.assert_close(ours(pack(rows)), expected, atol=1e-5, rtol=0)


def test_packed_gradients_equal_padded_gradients() -> None:
    ours, theirs = tiny_pair()
    rows = sequences(MIXED)
    weight = torch.randn(len(rows), TINY.hidden_size)
    (ours(pack(rows)) * weight).sum().backward()
    (pooled_by_transformers(theirs, rows, "mean") * weight).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    expected = packed_state(gradients, TINY.num_hidden_layers)
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-5)


def test_minilm_packed_equals_minilm_of_transformers() -> None:
    from transformers import BertModel

    folder = encoder_folder("minilm")
    theirs = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ours = load_encoder(folder).eval()
    rows = sequences([3, 50, 12, 12, 31], vocab_size=30000)
    with torch.no_grad():
        torch.testing.assert_close(ours(pack(rows)), pooled_by_transformers(theirs, rows, "mean"), atol=1e-5, rtol=0)


def test_no_product_is_over_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the multiplications of every product: they are exactly those of the real tokens."""
    counted = {"linear": 0, "attention": 0}
    real_product, real_bmm = kernels._product, torch.bmm

    def product(left: Tensor, right: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
        counted["linear"] += left.shape[0] * left.shape[1] * right.shape[0]
        return real_product(left, right, bias, then)

    def bmm(left: Tensor, right: Tensor) -> Tensor:
        counted["attention"] += left.shape[0] * left.shape[1] * left.shape[2] * right.shape[2]
        return real_bmm(left, right)

    monkeypatch.setattr(kernels, "_product", product)
    monkeypatch.setattr(torch, "bmm", bmm)
    ours, _ = tiny_pair()
    with torch.no_grad():
        ours(pack(sequences(MIXED)))
    tokens, squares = sum(MIXED), sum(n * n for n in MIXED)
    size, wide, layers = TINY.hidden_size, TINY.intermediate_size, TINY.num_hidden_layers
    assert counted["linear"] == layers * tokens * (4 * size * size + 2 * size * wide)
    assert counted["attention"] == layers * 2 * squares * size


def test_the_fused_attention_of_a_gpu_equals_the_grouped_one_of_a_cpu() -> None:
    groups = ((2, 3), (1, 7), (3, 8))
    qkv = torch.randn(sum(c * n for c, n in groups), 3, 4, 8, requires_grad=True)
    weight = torch.randn(len(qkv), 32)
    (kernels.attention(qkv, groups, 0.0) * weight).sum().backward()
    grouped, qkv.grad = qkv.grad, None
    (kernels._fused_attention(qkv, groups, 0.0) * weight).sum().backward()
    torch.testing.assert_close(kernels._fused_attention(qkv, groups, 0.0), kernels.attention(qkv, groups, 0.0))
    torch.testing.assert_close(grouped, qkv.grad)


def test_attention_dropout_has_the_gradient_of_its_own_mask() -> None:
    """Finite differences under one seed, so that forward and backward must share the mask."""
    groups = ((2, 3), (1, 4))
    qkv = torch.randn(10, 3, 2, 4, dtype=torch.float64, requires_grad=True)

    def run(value: Tensor) -> Tensor:
        torch.manual_seed(3)
        return kernels.attention(value, groups, 0.3)

    assert torch.autograd.gradcheck(run, (qkv,))


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    ones = torch.ones(1000, 1001, requires_grad=True)
    dropped = kernels.dropout(ones, 0.1, True)
    dropped.sum().backward()
    assert (dropped == 0).float().mean().item() == pytest.approx(0.1, abs=1e-3)
    assert dropped.mean().item() == pytest.approx(1.0, abs=2e-3)
    assert torch.equal(ones.grad, dropped.detach())  # type: ignore[arg-type]
    assert kernels.dropout(ones, 0.1, False) is ones


def test_frozen_layers_get_no_gradient_and_no_dropout() -> None:
    encoder = PackedBert(TINY, trainable_layers=1).train()
    packed = pack(sequences(MIXED))
    assert torch.equal(encoder.lower(packed), encoder.lower(packed))
    assert not torch.equal(encoder(packed), encoder(packed))
    encoder(packed).sum().backward()
    with_gradient = {name.rsplit(".", 2)[0] for name, p in encoder.named_parameters() if p.grad is not None}
    assert with_gradient == {"layers.2"}


def test_what_lies_under_the_trained_layers_can_be_kept() -> None:
    ours, _ = tiny_pair()
    part = PackedBert(TINY, trainable_layers=1).eval()
    part.load_state_dict(ours.state_dict())
    packed = pack(sequences(MIXED))
    kept = part.lower(packed).detach()
    torch.testing.assert_close(part.upper(kept, packed.groups)[packed.restore_N], ours(packed))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "there is no such folder"),
        ("no-such-model-on-the-hub", "cannot be had from the model hub"),
    ],
)
def test_an_encoder_that_cannot_be_had_is_one_clear_message(name: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        encoder_folder(name)


def test_an_encoder_that_is_no_bert_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(EncoderError, match="is a 'roberta'; only BERT"):
        encoder_folder(str(folder))


def test_truncated_encoder_weights_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("encoder")
    source = encoder_folder("minilm")
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    (folder / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:100_000])
    with pytest.raises(EncoderError, match="cannot be read"):
        load_encoder(folder)


@pytest.mark.parametrize("kind", ["with a head", "in parts", "with TensorFlow's names", "in half precision"])
def test_a_checkpoint_is_read_as_transformers_reads_it(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertForMaskedLM, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    model = BertForMaskedLM(BertConfig(**{k: getattr(TINY, k) for k in TINY.__dataclass_fields__}))
    saved = model.bert if kind == "in half precision" else model
    saved = saved.half() if kind == "in half precision" else saved
    saved.save_pretrained(folder, max_shard_size="30KB" if kind == "in parts" else "1GB")
    assert (folder / "model.safetensors").is_file() is (kind != "in parts")
    if kind == "with TensorFlow's names":
        state = load_file(folder / "model.safetensors")
        names = {name: name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta") for name in state}
        save_file({names[n]: v for n, v in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    theirs = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)
    expected = packed_state(dict(theirs.state_dict()), TINY.num_hidden_layers)
    found = load_encoder(folder).state_dict()
    assert {name for name in expected if not torch.equal(found[name], expected[name])} == set()


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = write_tiny_bert(tmp_path_factory.mktemp("encoder"))
    shape = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(shape | {"num_hidden_layers": 3}))
    with pytest.raises(EncoderError, match=r"lack 'encoder\.layer\.2\."):
        load_encoder(folder)
    (folder / "config.json").write_text(json.dumps(shape | {"intermediate_size": 48}))
    with pytest.raises(EncoderError, match=r"(?s)do not fit its config\.json: .*size mismatch"):
        load_encoder(folder)
