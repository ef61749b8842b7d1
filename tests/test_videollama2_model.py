"""VideoLLaMA2 in transformers: every connector and tower, batches, loading and saving."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from lgsrr.errors import ModelError, PromptError
from pipelines.videollama2 import VideoLlama2Config, VideoLlama2ForConditionalGeneration, VideoLlama2Processor
from pipelines.videollama2.connectors import build_connector, count_tokens
from pipelines.videollama2.random_checkpoint import RandomCheckpoint, tiny, write_checkpoint
from pipelines.videollama2.regstage import Bottleneck, SqueezeExcite
from tests.clips import moving_square

Model = VideoLlama2ForConditionalGeneration
CONNECTORS = [
    "stc_connector",
    "stc_connector_v35",
    "stp_connector",
    "spatial_conv",
    "spatial_pool",
    "linear",
    "mlp2x_gelu",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), tiny())


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def shard(folder: Path) -> list[Path]:
    """Divides the weights into two shards with an index."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    halves = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, part in halves.items():
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
    weight_map = {n: file for file, part in halves.items() for n in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    return [folder / file for file in halves]


@pytest.mark.parametrize("connector", CONNECTORS)
def test_every_connector_gives_as_many_tokens_as_it_promises(connector: str) -> None:
    config = VideoLlama2Config.from_dict(
        {"model_type": "videollama2_mistral", "mm_projector_type": connector, "hidden_size": 1024, "num_frames": 5}
    )
    with torch.device("meta"):
        tokens = build_connector(config)(torch.empty(2, 5, 24 * 24, 1024))
    assert tokens.shape == (2, config.num_video_tokens, 1024)


def test_the_published_connectors_give_the_published_number_of_tokens() -> None:
    assert count_tokens("stc_connector", 16, 24) == 9 * 13 * 13
    assert count_tokens("stc_connector_v35", 16, 27) == 8 * 13 * 13


def test_spatial_pool_is_the_mean_of_four_patches() -> None:
    config = VideoLlama2Config.from_dict(
        {"model_type": "videollama2_mistral", "mm_projector_type": "spatial_pool", "hidden_size": 1024}
    )
    connector = build_connector(config)
    readout = connector.get_submodule("readout")
    features = torch.randn(1, 3, 16, 1024)
    pooled = features.view(1, 3, 2, 2, 2, 2, 1024).mean((3, 5)).view(1, 12, 1024)
    torch.testing.assert_close(connector(features), readout(F.silu(pooled)), atol=1e-5, rtol=1e-5)


def test_squeeze_and_excite_scales_each_channel_by_its_gate() -> None:
    block, x = SqueezeExcite(8, 2), torch.randn(2, 8, 3, 3)
    squeezed = F.silu(F.linear(x.mean((2, 3)), block.fc1.weight[:, :, 0, 0], block.fc1.bias))
    gate = F.linear(squeezed, block.fc2.weight[:, :, 0, 0], block.fc2.bias).sigmoid()
    torch.testing.assert_close(block(x), x * gate[:, :, None, None])


def test_a_bottleneck_whose_last_norm_is_zero_is_its_shortcut() -> None:
    block, x = Bottleneck(8, 8), torch.randn(2, 8, 3, 3)
    torch.nn.init.zeros_(block.conv3.bn.weight)
    torch.testing.assert_close(block(x), F.silu(x))


@pytest.mark.parametrize(("language", "tower", "connector"), [("qwen2", "siglip", "stc_connector_v35")])
def test_videollama2_1_generates(tmp_path: Path, language: str, tower: str, connector: str) -> None:
    recipe = RandomCheckpoint(language=language, tower=tower, connector=connector)  # type: ignore[arg-type]
    model = Model.from_pretrained(write_checkpoint(tmp_path, recipe))
    processor = VideoLlama2Processor.from_pretrained(tmp_path)
    prompt = processor.build_prompt("What happens?")
    assert "<<SYS>>" not in prompt
    assert prompt.startswith("<|im_start|>user\n<video>\nWhat happens?")
    tokens = model.generate(**processor(text=prompt, videos=moving_square(20)), max_new_tokens=5)
    assert tokens.shape == (1, 5)


def test_a_batch_gives_the_tokens_of_each_by_itself(folder: Path) -> None:
    model, processor = Model.from_pretrained(folder), VideoLlama2Processor.from_pretrained(folder)
    words = ["Go.", "Describe the speakers' actions in the video.", "What do their faces show, and why? " * 4]
    prompts = [*(processor.build_prompt(w) for w in words), processor.build_prompt("No clip here.", clip=False)]
    clips = [moving_square(16, seed=1), moving_square(30, 64, 40, seed=2), moving_square(7, seed=3), None]
    together = model.generate(**processor(text=prompts, videos=clips), max_new_tokens=12)
    for row, prompt, clip in zip(together, prompts, clips, strict=True):
        alone = model.generate(**processor(text=[prompt], videos=[clip]), max_new_tokens=12)[0]
        assert row[: len(alone)].tolist() == alone.tolist()


def test_an_answer_stops_where_the_context_ends(copy: Path) -> None:
    processor = VideoLlama2Processor.from_pretrained(copy)
    prompt = processor.build_prompt("Go.")
    length = processor(text=prompt, videos=moving_square(16))["input_ids"].shape[1]
    edit_config(copy, max_position_embeddings=length + 3, eos_token_id=None)
    model, processor = Model.from_pretrained(copy), VideoLlama2Processor.from_pretrained(copy)
    tokens = model.generate(**processor(text=prompt, videos=moving_square(16)), max_new_tokens=64)
    assert tokens.shape[1] == 3


def test_training_reaches_the_connector(folder: Path) -> None:
    model, processor = Model.from_pretrained(folder), VideoLlama2Processor.from_pretrained(folder)
    inputs = processor(text=processor.build_prompt("Go."), videos=moving_square(16))
    model(**inputs, labels=inputs["input_ids"].clamp(min=0)).loss.backward()
    assert model.model.mm_projector.readout[0].weight.grad.abs().sum() > 0


def test_what_is_saved_loads_again(folder: Path, tmp_path: Path) -> None:
    model = Model.from_pretrained(folder)
    model.save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path)
    for (name, ours), (other, theirs) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs)


def test_shards_and_bin_files_load_as_one_file_does(copy: Path, folder: Path) -> None:
    whole = Model.from_pretrained(folder).state_dict()
    shards = shard(copy)
    sharded = Model.from_pretrained(copy).state_dict()
    torch.save({n: t for s in shards for n, t in load_file(s).items()}, copy / "pytorch_model.bin")
    for file in [*shards, copy / "model.safetensors.index.json"]:
        file.unlink()
    from_bin = Model.from_pretrained(copy).state_dict()
    assert all(torch.equal(whole[n], sharded[n]) and torch.equal(whole[n], from_bin[n]) for n in whole)


def test_a_bin_file_that_would_run_code_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({"model.norm.weight": np.ones(3), "evil": subprocess.Popen}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no plain file of weights"):
        Model.from_pretrained(copy)


MEASURE = """
import sys
from pathlib import Path
from pipelines.videollama2 import VideoLlama2ForConditionalGeneration as Model
def peak():  # not getrusage: what it gives is at least what the parent had
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
Model.from_pretrained(sys.argv[1])
before = peak()
model = Model.from_pretrained(sys.argv[2])
sum(float(p.sum()) for p in model.parameters())  # what is mapped and not read yet would not count
print((peak() - before) * 1024, sum(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from Linux's /proc")
def test_loading_does_not_hold_two_copies_of_the_weights(folder: Path, tmp_path: Path) -> None:
    """The peak of memory over that of a tiny checkpoint, in a process of its own."""
    wide = RandomCheckpoint(hidden=512, layers=12, heads=8, kv_heads=8, mlp=2048, connector="linear")
    write_checkpoint(tmp_path, wide)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), str(tmp_path)], capture_output=True, text=True, check=True
    )
    peak, weights = map(int, done.stdout.split())
    assert weights > 150_000_000
    assert 0.7 * weights < peak < 1.3 * weights


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "nothing", "a/b/c"])
def test_a_folder_that_is_not_there_is_one_message(name: str) -> None:
    for opened in (VideoLlama2Config, Model, VideoLlama2Processor):
        with pytest.raises(ModelError, match="there is no folder"):
            opened.from_pretrained(name)


def test_an_empty_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a VideoLLaMA2 checkpoint: it has no config\.json"):
        Model.from_pretrained(tmp_path)


def test_another_models_checkpoint_is_refused(copy: Path) -> None:
    edit_config(copy, model_type="mistral")
    with pytest.raises(ModelError, match="not a VideoLLaMA2 checkpoint: its model_type is 'mistral'"):
        Model.from_pretrained(copy)


def test_a_connector_of_unknown_name_is_refused(copy: Path) -> None:
    edit_config(copy, mm_projector_type="qformer")
    with pytest.raises(ModelError, match="'qformer': there is no such connector; known are stc_connector"):
        Model.from_pretrained(copy)


def test_a_tower_that_is_nowhere_is_refused(copy: Path) -> None:
    edit_config(copy, mm_vision_tower="someone/clip-of-theirs")
    with pytest.raises(ModelError, match="'someone/clip-of-theirs' is none of openai/clip-vit-large-patch14,"):
        Model.from_pretrained(copy)


def test_a_tower_of_another_width_is_refused(copy: Path) -> None:
    edit_config(copy, mm_hidden_size=64)
    with pytest.raises(ModelError, match="mm_hidden_size=64, but the vision tower's features are 32 wide"):
        Model.from_pretrained(copy)


def test_no_weights_are_told(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        Model.from_pretrained(copy)


def test_a_missing_shard_is_named(copy: Path) -> None:
    shard(copy)[1].unlink()
    with pytest.raises(ModelError, match=r"is incomplete: of 2 shards, b\.safetensors is missing"):
        Model.from_pretrained(copy)


def test_a_truncated_file_is_named(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:50_000])
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read; it may be truncated"):
        Model.from_pretrained(copy)


def test_missing_unexpected_and_misshapen_tensors_are_named(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.mm_projector.extra"] = torch.ones(2)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:300].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)  # a buffer of old files, ignored
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        Model.from_pretrained(copy)
    message = str(caught.value)
    assert "1 missing: model.norm.weight; 1 unexpected: model.mm_projector.extra; 1 of another shape: " in message
    assert "lm_head.weight is (300, 48), expected (350, 48)" in message


def test_a_place_without_a_clip_is_refused_by_the_model_too(folder: Path) -> None:
    model, processor = Model.from_pretrained(folder), VideoLlama2Processor.from_pretrained(folder)
    inputs = processor(text=processor.build_prompt("Go."), videos=moving_square(16))
    with pytest.raises(PromptError, match="no clip was given"):
        model.generate(inputs["input_ids"], None, inputs["attention_mask"])
    with pytest.raises(PromptError, match="2 clips are 162 tokens, and the prompts have places for 81"):
        model.generate(inputs["input_ids"], inputs["pixel_values_videos"].repeat(2, 1, 1, 1, 1))
