"""A VideoLLaMA2 of random weights in the published layout: what tests, benchmarks and rehearsals run on.

    python -m pipelines.videollama2.random_checkpoint FOLDER [midsize]

It has every file of a real checkpoint, tower's config and tokenizer included, says nothing that makes sense, and
starts in a second. Its tokenizer is a byte-level BPE trained on the published system text, so that any text can be
written in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .configuration import VideoLlama2Config
from .modeling import VideoLlama2ForConditionalGeneration
from .prompts import SYSTEM
from .towers import CLIP_MEAN, CLIP_STD

MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + '\\n' }}"
    "{% elif m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
QWEN2_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = {
    "mistral": ["<unk>", "<s>", "</s>"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
}
"""Padding, start and end of a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCheckpoint:
    """Sizes of a random checkpoint; the defaults make the smallest that still has every part."""

    name: str = "random"
    """Part of the name of the tower's folder."""
    language: Literal["mistral", "qwen2"] = "mistral"
    tower: Literal["clip", "siglip"] = "clip"
    connector: str = "stc_connector"
    hidden: int = 48
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 96
    context: int = 2048
    """Tokens of prompt, clip and answer together."""
    tower_hidden: int = 32
    tower_layers: int = 3
    tower_heads: int = 4
    tower_mlp: int = 64
    pixels: int = 56
    """Side of a frame as the tower takes it; patches are 14 pixels wide."""
    frames: int = 16
    select_layer: int = -2
    """Which of the tower's hidden states is read."""
    tied: bool = False
    """Whether the language model's first and last layers share their weights."""
    spread: float = 0.02
    """Standard deviation of the weights of the language model."""
    seed: int = 0


def tiny() -> RandomCheckpoint:
    """Some 200 k parameters: for tests."""
    return RandomCheckpoint()


def midsize() -> RandomCheckpoint:
    """37 M parameters: for measuring speed."""
    return RandomCheckpoint(
        hidden=512, layers=8, heads=8, kv_heads=4, mlp=1408, tower_hidden=256, tower_layers=6, tower_heads=4,
        tower_mlp=1024, pixels=112,
    )  # fmt: skip


def write_checkpoint(folder: Path, recipe: RandomCheckpoint) -> Path:
    """Writes the checkpoint to `folder` and returns it."""
    tokenizer = make_tokenizer(recipe.language)
    write_settings(folder, recipe, tokenizer)
    _random_model(folder, recipe).save_pretrained(folder)
    write_settings(folder, recipe, tokenizer)
    return folder


def write_settings(folder: Path, recipe: RandomCheckpoint, tokenizer: PreTrainedTokenizerFast) -> None:
    """Everything of a checkpoint but its weights."""
    tower_folder = folder / f"{recipe.tower}-{recipe.name}-patch14"
    tower_folder.mkdir(parents=True, exist_ok=True)
    _write_json(tower_folder / "config.json", _vision_config(recipe))
    _write_json(tower_folder / "preprocessor_config.json", _preprocessor(recipe))
    tokenizer.save_pretrained(folder)
    _write_json(folder / "config.json", _config(recipe, len(tokenizer), tower_folder.name))


def _random_model(folder: Path, recipe: RandomCheckpoint) -> VideoLlama2ForConditionalGeneration:
    torch.manual_seed(recipe.seed)
    model = VideoLlama2ForConditionalGeneration(VideoLlama2Config.from_pretrained(folder))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and not name.startswith(("model.vision_tower", "model.mm_projector")):
                parameter.normal_(std=recipe.spread)
    return model


def make_tokenizer(
    language: Literal["mistral", "qwen2"], size: int = 350, texts: Sequence[str] = (SYSTEM,)
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `size` tokens learned from `texts`, with the language model's special tokens and template."""
    padding, start, end = SPECIAL[language]
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL[language],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start if language == "mistral" else None,
        eos_token=end,
        pad_token=padding,
        unk_token=padding if language == "mistral" else None,
        chat_template=MISTRAL_TEMPLATE if language == "mistral" else QWEN2_TEMPLATE,
    )


def _config(recipe: RandomCheckpoint, vocabulary: int, tower: str) -> dict[str, Any]:
    """`config.json` with the keys that the published checkpoints have."""
    return {
        "architectures": [f"Videollama2{recipe.language.capitalize()}ForCausalLM"],
        "model_type": f"videollama2_{recipe.language}",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": recipe.hidden,
        "intermediate_size": recipe.mlp,
        "max_position_embeddings": recipe.context,
        "mm_hidden_size": recipe.tower_hidden,
        "mm_projector_type": recipe.connector,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": recipe.select_layer,
        "mm_vision_tower": tower,
        "num_attention_heads": recipe.heads,
        "num_frames": recipe.frames,
        "num_hidden_layers": recipe.layers,
        "num_key_value_heads": recipe.kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": recipe.tied,
        "torch_dtype": "float32",
        "transformers_version": "4.40.0",
        "use_cache": True,
        "vocab_size": vocabulary,
    }


def _vision_config(recipe: RandomCheckpoint) -> dict[str, Any]:
    return {
        "model_type": f"{recipe.tower}_vision_model",
        "hidden_size": recipe.tower_hidden,
        "intermediate_size": recipe.tower_mlp,
        "num_hidden_layers": recipe.tower_layers,
        "num_attention_heads": recipe.tower_heads,
        "image_size": recipe.pixels,
        "patch_size": 14,
    }


def _preprocessor(recipe: RandomCheckpoint) -> dict[str, Any]:
    square = {"height": recipe.pixels, "width": recipe.pixels}
    if recipe.tower == "siglip":
        return {"size": square, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
    edge = {"shortest_edge": recipe.pixels}
    return {"size": edge, "crop_size": square, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "resample": 3}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    print(write_checkpoint(Path(sys.argv[1]), midsize() if "midsize" in sys.argv[2:] else tiny()))
