"""Training and inference: ours beside the plain way, in one process and in turns.

    python -m tests.benchmarks.speed --data ../shared/data

The plain way pads every sequence to 50, calls transformers' BertModel once for the texts and once for the descriptions,
batch 32, and steps torch's AdamW. Both train all layers of MiniLM on the same utterances of MIntRec2.0, with the same
threads, relations and losses. Turns alternate, so that a drift of the machine falls on both.

The share of peak is useful arithmetic (real tokens only) over what a 2048³ float32 product reaches here, by the faster
of torch's two libraries; the figure for torch's own choice (`a @ b`) stands beside it.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgsrr import cli, kernels
from lgsrr.batch import Batch, BatchMaker, Rows
from lgsrr.catalog import load_dataset
from lgsrr.config import TrainConfig
from lgsrr.features import Features, Lengths, cache_folder, featurise
from lgsrr.loss import neural_ndcg_per_utterance, ranking_relevance
from lgsrr.memory import TRIM_EVERY, bound_caches, trim
from lgsrr.model import LGSRR, Relations, SemanticRelations
from lgsrr.optimizer import make_optimizer, set_rate
from lgsrr.pretrained import encoder_config, encoder_folder, load_encoder

LENGTH = 50
BATCH = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    data: str = "../shared/data"
    """Folder with the released tables."""
    steps: int = 20
    """Batches of 32 in each turn."""
    turns: int = 5
    """Turns of each way; the medians over the turns are compared."""


class PlainEncoder(nn.Module):
    """transformers' BertModel on padded batches, texts and descriptions in two calls, masked mean."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import BertModel

        self.bert = BertModel.from_pretrained(folder, add_pooling_layer=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled: Tensor = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return pooled


class Plain(nn.Module):
    def __init__(self, folder: Path, relations: SemanticRelations, maker: BatchMaker) -> None:
        super().__init__()
        self.encoder, self.relations, self.maker = PlainEncoder(folder), relations, maker

    def forward(self, rows: Rows) -> Relations:
        text = self.encoder(*self._padded(rows, [0]))
        described = self.encoder(*self._padded(rows, list(range(1, self.maker.num_slots))))
        relations: Relations = self.relations(text, described.view(len(rows), -1, text.shape[-1]))
        return relations

    def _padded(self, rows: Rows, slots: list[int]) -> tuple[Tensor, Tensor]:
        ids = torch.zeros(len(rows) * len(slots), LENGTH, dtype=torch.int64)
        mask = torch.zeros(len(rows) * len(slots), LENGTH)
        for i, (row, slot) in enumerate((int(r), s) for r in rows for s in slots):
            sequence = self.maker.sequence(row, slot)
            ids[i, : len(sequence)] = torch.from_numpy(np.asarray(sequence, dtype=np.int64))
            mask[i, : len(sequence)] = 1
        return ids, mask


class Ours(nn.Module):
    def __init__(self, model: LGSRR, maker: BatchMaker) -> None:
        super().__init__()
        self.model, self.maker = model, maker

    def forward(self, rows: Rows) -> Relations:
        relations: Relations = self.model(self.maker(rows))
        return relations


def training_step(way: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, rows: Rows) -> None:
    """Cross entropy and ranking loss, gradients, clipping, AdamW: the same for both ways."""
    relations = way(rows)
    assert batch.positions_BK is not None
    ndcg_B = neural_ndcg_per_utterance(relations.importance_BS, ranking_relevance(batch.positions_BK))
    loss = F.cross_entropy(relations.logits_BC, batch.labels_B) + (1 - ndcg_B).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(way.parameters(), 1.0)
    optimizer.step()


def useful_gflop(features: Features, rows: Rows, training: bool) -> float:
    """Multiplications and additions (10⁹) over real tokens: linear layers and attention, thrice in training."""
    shape = encoder_config(encoder_folder("minilm"))
    size, wide = shape.hidden_size, shape.intermediate_size
    lengths = np.concatenate([np.diff(offsets)[rows] for _, offsets in features.columns()]).astype(np.float64)
    per_layer = 2 * lengths.sum() * (4 * size * size + 2 * size * wide) + 4 * (lengths**2).sum() * size
    return float(per_layer) * shape.num_hidden_layers * (3 if training else 1) / 1e9


def peak_gflops() -> tuple[float, float]:
    """What a 2048³ float32 product reaches: (the faster library, torch's own choice)."""
    left, right = torch.randn(2, 2048, 2048)

    def rate(product: Callable[[Tensor, Tensor], Tensor]) -> float:
        seconds = []
        for _ in range(8):
            started = time.perf_counter()
            product(left, right)
            seconds.append(time.perf_counter() - started)
        return 2 * 2048**3 / min(seconds) / 1e9

    own = rate(torch.matmul)
    return max(own, rate(lambda a, b: kernels.linear(a, b, torch.zeros(2048)))), own


def build(way: str, maker: BatchMaker, num_classes: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """One way with its optimizer, from the same pretrained weights."""
    bound_caches()
    torch.manual_seed(0)
    folder = encoder_folder("minilm")
    relations = SemanticRelations(encoder_config(folder).hidden_size, num_classes)
    if way == "plain":
        plain = Plain(folder, relations, maker)
        return plain, torch.optim.AdamW(plain.parameters(), lr=1e-5, weight_decay=0.05)
    ours = Ours(LGSRR(load_encoder(folder), relations), maker)
    optimizer = make_optimizer(ours.model, TrainConfig(dataset="mintrec2", lr=1e-5))
    set_rate(optimizer, 1.0)
    return ours, optimizer


def run(way: nn.Module, optimizer: torch.optim.Optimizer, maker: BatchMaker, batches: list[Rows], kind: str) -> None:
    """Train on, or infer, every batch."""
    way.train(kind == "training")
    if kind == "training":
        for step, rows in enumerate(batches):
            training_step(way, optimizer, maker(rows), rows)
            if isinstance(way, Ours) and step % TRIM_EVERY == TRIM_EVERY - 1:  # as lgsrr.worker does
                trim()
        return
    with torch.inference_mode():
        for rows in batches:
            way(rows)


def peak_memory_mb(data: str, way: str, kind: str, batches: list[Rows]) -> float:
    """Highest resident memory of a process that does nothing but this."""
    features, num_classes = prepare(data)
    maker = BatchMaker(features)
    run(*build(way, maker, num_classes), maker, batches, kind)
    # Not ru_maxrss: that of the process which started this one outlives the exec.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def prepare(data: str) -> tuple[Features, int]:
    """Features of MIntRec2.0, texts and descriptions of at most 50 word pieces, and the number of classes."""
    dataset = load_dataset("mintrec2", data)
    lengths = Lengths(text=LENGTH, description=LENGTH)
    features = featurise(
        dataset, encoder=encoder_folder("minilm"), lengths=lengths, num_aspects=3, cache=cache_folder()
    )
    return features, len(dataset.labels)


def measure(settings: Settings) -> None:
    prepare(settings.data)
    started = time.perf_counter()
    features, num_classes = prepare(settings.data)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {settings.steps * BATCH} utterances a turn")
    print(f"a second start spends {time.perf_counter() - started:.2f} s on data")
    peak, own = peak_gflops()
    print(f"2048³ float32 product: {peak:.0f} GFLOP/s (torch's own choice: {own:.0f})")

    maker = BatchMaker(features)
    order = np.random.default_rng(0).permutation(features.indices("train"))
    batches = [order[i * BATCH : (i + 1) * BATCH] for i in range(settings.steps)]
    ways = {name: build(name, maker, num_classes) for name in ("ours", "plain")}
    for kind in ("training", "inference"):
        rates = {name: [] for name in ways}  # type: dict[str, list[float]]
        for turn in range(settings.turns + 1):
            for name, (way, optimizer) in ways.items():
                started = time.perf_counter()
                run(way, optimizer, maker, batches, kind)
                if turn:  # the first warms up
                    rates[name].append(settings.steps * BATCH / (time.perf_counter() - started))
        each = useful_gflop(features, np.concatenate(batches), kind == "training") / (settings.steps * BATCH)
        for name, values in rates.items():
            speed = statistics.median(values)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                memory = pool.apply(peak_memory_mb, (settings.data, name, kind, batches))
            print(
                f"{kind:9}  {name:5}  {speed:6.1f} utterances/s   useful {each * speed:4.0f} GFLOP/s = "
                f"{100 * each * speed / peak:3.0f} % of peak ({100 * each * speed / own:3.0f} % of torch's own)   "
                f"peak memory {memory:5.0f} MB"
            )
        ratios = [a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)]
        print(f"{kind:9}  ours / plain  {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    cli.run(
        measure, Settings, prog="python -m tests.benchmarks.speed", description=(__doc__ or "").split("\n\n")[0],
        example="python -m tests.benchmarks.speed --steps 8 --turns 5",
    )  # fmt: skip
