"""The small VideoLLaMA2 that is shipped with the project: its sizes, its vocabulary, and its first, random weights.

It knows the people of `pipelines.drawn_clips` and nothing else, and has every part of the big one: CLIP tower,
stc_connector, Mistral. Its vocabulary is learned from what it is asked and what it answers, and any other text can be
written in it byte by byte; the published system text is one token of it, as nobody reads those ninety words here.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from tokenizers import AddedToken
from torch import nn
from transformers import PreTrainedTokenizerFast

from pipelines.shipped import NAME

from .configuration import VideoLlama2Config
from .modeling import VideoLlama2ForConditionalGeneration
from .prompts import SYSTEM
from .random_checkpoint import RandomCheckpoint, make_tokenizer, write_settings
from .small_lessons import vocabulary_texts

_VOCABULARY = 1000


def small() -> RandomCheckpoint:
    """2.8 M parameters. Heads are 32 wide, the narrowest that vLLM's kernels take."""
    return RandomCheckpoint(
        name=NAME, hidden=160, layers=3, heads=5, kv_heads=5, mlp=448, context=1024, tied=True, frames=8, pixels=112,
        tower_hidden=128, tower_layers=4, tower_heads=4, tower_mlp=512, select_layer=-1,
    )  # fmt: skip


def write_small_settings(folder: Path) -> Path:
    """The folder of the model without its weights."""
    write_settings(folder, small(), _tokenizer())
    return folder


def untrained(folder: Path, seed: int) -> VideoLlama2ForConditionalGeneration:
    """The model of such a folder before it has learned anything."""
    torch.manual_seed(seed)
    model = VideoLlama2ForConditionalGeneration(VideoLlama2Config.from_pretrained(folder))
    _initialise(model)
    return model


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer("mistral", _VOCABULARY, vocabulary_texts())
    tokenizer.add_tokens([AddedToken(SYSTEM, normalized=False)])
    return tokenizer


@torch.no_grad()
def _initialise(model: nn.Module) -> None:
    """Weights drawn so that a layer keeps the size of what goes through it; what adds to a residual starts small."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith("lm_head"):
            adds = name.endswith(("o_proj", "out_proj", "down_proj", "fc2"))
            nn.init.normal_(module.weight, std=(0.3 if adds else 0.8) / math.sqrt(module.in_features))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.4 if name.endswith("position_embedding") else 0.05)
        elif isinstance(module, nn.Conv2d) and name.endswith("patch_embedding"):
            _see_edges(module)


def _see_edges(patches: nn.Conv2d) -> None:
    """Filters of which three in four do not see how bright a patch is: a mouth is little beside a wall's colour."""
    nn.init.normal_(patches.weight, std=1 / math.sqrt(patches.weight[0].numel()))
    edges = patches.weight[: 3 * len(patches.weight) // 4]
    edges -= edges.mean(dim=(2, 3), keepdim=True)
    edges *= 2
