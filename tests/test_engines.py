"""Engines: answers in order, failures as values, frames on the wire, and one vision pass for all prompts of a clip."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from PIL import Image

from lgsrr.errors import ConfigError
from lgsrr.records import Aspect
from pipelines.calls import Answer, Fatal, Refused, Request, fingerprint_of
from pipelines.decoding import Decoded
from pipelines.describe_prompts import again, joint_prompt, separate_prompt
from pipelines.engines import Ask, Engine, EngineConfig, EngineDead, Said, Scripted, make_engine, stream
from pipelines.engines.config import revision_of
from pipelines.engines.interface import _spaced
from pipelines.sections import SectionError, parse_sections
from tests.clips import moving_square
from tests.tiny import ROOT

ASPECTS = (Aspect(name="Speakers' Actions"), Aspect(name="Facial Expressions"), Aspect(name="Interaction with Others"))
JOINT = joint_prompt("Hello.", ASPECTS)


def an_ask(name: str = "a", *prompts: str, frames: int = 4, seed: int = 0) -> Ask:
    clip = Decoded(
        frames=moving_square(frames, seed=seed),
        indices=tuple(range(1, 2 * frames, 2)),
        count=2 * frames,
        fps=25.0,
        seconds=0.32,
        width=64,
        height=48,
    )
    return Ask(id=name, clip=f"{name}.mp4:123", decoded=clip, prompts=prompts or (JOINT,))


def scripted(**behaviour: Any) -> Engine:
    return make_engine(EngineConfig(engine="scripted", model="stand-in", scripted=Scripted(**behaviour)))


def answers(engine: Engine, *asks: Ask) -> list[tuple[Said, ...]]:
    return asyncio.run(engine.describe(asks))


def text(said: Said) -> str:
    assert isinstance(said, Answer)
    return said.text


def test_the_scripted_engine_answers_joint_and_separate_prompts_and_says_the_same_again() -> None:
    separate = [separate_prompt("Hello.", aspect) for aspect in ASPECTS]
    ask = an_ask("a", JOINT, *separate)
    ((joint, *others),) = answers(scripted(), ask)
    assert len(parse_sections(text(joint), ASPECTS)) == 3
    assert all("A stand-in looked at 4 frames" in text(said) for said in others)
    assert [[text(s) for s in said] for said in answers(scripted(), ask)] == [[text(joint), *map(text, others)]]


def test_answers_come_in_the_order_of_the_asks_with_their_receipts() -> None:
    asks = [an_ask(name) for name in "abc"]
    engine = scripted()
    for ask, (said,) in zip(asks, answers(engine, *asks), strict=True):
        assert isinstance(said, Answer)
        assert said.fingerprint == engine.request(ask.clip, JOINT).fingerprint
        assert (said.frames, said.model) == (ask.decoded.indices, "stand-in")
        assert said.packages


def test_each_fault_goes_wrong_in_its_way_and_only_there() -> None:
    engine = scripted(
        faults={
            "bad": "malformed",
            "mum": "empty",
            "order": "shuffled",
            "no": "refuse",
            "err": "raise",
            "x1": "malformed once",
        }
    )
    names = ("bad", "mum", "order", "no", "err", "fine")
    said = {name: one for name, (one,) in zip(names, answers(engine, *map(an_ask, names)), strict=True)}
    for name in ("bad", "mum", "no"):
        with pytest.raises(SectionError):
            parse_sections(text(said[name]), ASPECTS)
    assert parse_sections(text(said["order"]), ASPECTS)[1].endswith("Facial Expressions.")
    assert isinstance(said["err"], Refused)
    assert parse_sections(text(said["fine"]), ASPECTS)
    ((first, second),) = answers(engine, an_ask("x1", JOINT, again(JOINT, "a section is missing")))
    with pytest.raises(SectionError):
        parse_sections(text(first), ASPECTS)
    assert parse_sections(text(second), ASPECTS)


def test_a_dead_engine_raises_and_stays_dead() -> None:
    engine = scripted(faults={"deadly": "die"})
    with pytest.raises(EngineDead, match="deadly"):
        answers(engine, an_ask("a"), an_ask("deadly"), an_ask("b"))
    with pytest.raises(EngineDead):
        answers(engine, an_ask("a"))


ENDS = """
import asyncio, numpy as np
from pipelines.decoding import Decoded
from pipelines.engines import Ask, EngineConfig, Scripted, make_engine
clip = Decoded(frames=np.zeros((1, 8, 8, 3), np.uint8), indices=(0,), count=1, fps=1, seconds=1, width=8, height=8)
engine = make_engine(EngineConfig(engine="scripted", scripted=Scripted(exit_after=2)))
for name in "abc":
    asyncio.run(engine.describe([Ask(id=name, clip=name, decoded=clip, prompts=("Go.",))]))
    print(name, flush=True)
"""


def test_a_process_that_is_told_to_end_ends_after_so_many_clips() -> None:
    done = subprocess.run([sys.executable, "-c", ENDS], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (86, ["a", "b"])


def test_new_clips_join_while_others_are_in_work_and_no_more_than_allowed() -> None:
    """The first clip hangs until the last has been described."""
    most, fetched = 0, 0

    async def main() -> list[str]:
        nonlocal most
        engine, working = scripted(), 0
        order: list[str] = []
        slow = asyncio.Event()

        class Watched(type(engine)):  # type: ignore[misc]
            async def answer(self, ask: Ask) -> tuple[Said, ...]:
                nonlocal working, most
                working += 1
                most = max(most, working)
                if ask.id == "0":
                    await slow.wait()
                answer: tuple[Said, ...] = await super().answer(ask)
                working -= 1
                if ask.id == "9":
                    slow.set()
                return answer

        async def asks() -> AsyncIterator[Ask]:
            nonlocal fetched
            for i in range(10):
                fetched += 1
                assert fetched - len(order) <= 4
                yield an_ask(str(i))

        async for ask, _ in stream(Watched(engine.config), asks(), at_once=3):
            order.append(ask.id)
        return order

    order = asyncio.run(main())
    assert sorted(order) == [str(i) for i in range(10)]
    assert "0" in order[-2:]
    assert most == 3


def test_a_stream_that_is_left_leaves_no_task() -> None:
    async def main() -> int:
        async def asks() -> AsyncIterator[Ask]:
            for name in ("a", "stuck", "b"):
                yield an_ask(name)

        answered = stream(scripted(faults={"stuck": "hang"}, lanes=2), asks(), at_once=2)
        await anext(answered)
        await answered.aclose()  # type: ignore[attr-defined]
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1


class Recorder:
    """Stands where `pipelines.asking.Asker` is: notes requests and answers them."""

    def __init__(self, error: Exception | None = None) -> None:
        self.requests: list[Request] = []
        self.error = error

    async def ask(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.error:
            raise self.error
        return Answer(fingerprint=request.fingerprint, text="seen", model="served", packages={"server": "1"})


def remote(recorder: Recorder, **settings: Any) -> Engine:
    return make_engine(EngineConfig(engine="remote", model="served", **settings), asker=recorder)


def test_frames_go_as_pictures_before_the_instruction() -> None:
    recorder, ask = Recorder(), an_ask("a", "What is seen?", "Who is seen?")
    ((first, _),) = answers(remote(recorder), ask)
    (*pictures, instruction) = recorder.requests[0].messages[0]["content"]
    assert instruction == {"type": "text", "text": "What is seen?"}
    assert len(pictures) == 4
    for picture, frame in zip(pictures, ask.decoded.frames, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].split(",")[1]))))
        assert np.abs(shown.astype(int) - frame).mean() < 20  # noise, of which another frame's is 30 away
    assert isinstance(first, Answer)
    assert first.frames == ask.decoded.indices
    assert {"server", "pillow"} <= set(first.packages)


def test_frames_go_as_one_video_with_their_times_where_the_server_takes_it() -> None:
    recorder, ask = Recorder(), an_ask("a", "What is seen?")
    answers(remote(recorder, send="video"), ask)
    (request,) = recorder.requests
    video, _ = request.messages[0]["content"]
    assert video["video_url"]["url"].startswith("data:video/jpeg;base64,")
    assert video["video_url"]["url"].count(",") == 4
    told = request.parameters["media_io_kwargs"]["video"]
    assert (told["frames_indices"], told["total_num_frames"], told["fps"]) == ([1, 3, 5, 7], 8, 25.0)


def test_a_fingerprint_is_known_before_decoding_and_holds_clip_prompt_and_settings() -> None:
    recorder, ask = Recorder(), an_ask("a", "What is seen?")
    engine = remote(recorder)
    answers(engine, ask)
    mark = engine.request(ask.clip, "What is seen?").fingerprint
    assert recorder.requests[0].fingerprint == mark
    others = [
        engine.request("a.mp4:124", "What is seen?"),
        engine.request(ask.clip, "Who is seen?"),
        engine.request(ask.clip, "What is seen?", {"temperature": 0.5}),
        remote(recorder, frames=8).request(ask.clip, "What is seen?"),
        remote(recorder, max_side=64).request(ask.clip, "What is seen?"),
        remote(recorder, revision="b").request(ask.clip, "What is seen?"),
    ]
    assert len({mark, *(request.fingerprint for request in others)}) == 7


def test_a_refusal_of_the_server_is_a_value_and_what_ends_the_job_is_raised() -> None:
    ((said,),) = answers(remote(Recorder(Refused("no", kind="refusal"))), an_ask())
    assert isinstance(said, Refused)
    with pytest.raises(Fatal):
        answers(remote(Recorder(Fatal("wrong key", advice="set it"))), an_ask())


def test_a_folders_revision_follows_its_files_and_not_its_place(tmp_path: Path) -> None:
    (folder := tmp_path / "m").mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"123")
    config = EngineConfig(model=str(folder))
    before = revision_of(config)
    moved = folder.rename(tmp_path / "n")
    assert revision_of(dataclasses.replace(config, model=str(moved))) == before
    (moved / "model.safetensors").write_bytes(b"1234")
    assert revision_of(dataclasses.replace(config, model=str(moved))) != before
    assert revision_of(EngineConfig(model="a/b", revision="r")) == "r"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "tensorrt"}, "expected one of vllm, transformers, remote, scripted"),
        ({"frames": 0}, "frames is 0"),
        ({"temperature": -1}, "temperature is -1"),
        ({"send": "fax"}, "expected one of frames, video"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineConfig(**settings)


def test_a_remote_engine_without_anything_that_asks_is_refused() -> None:
    with pytest.raises(ConfigError, match="asker"):
        make_engine(EngineConfig(engine="remote", model="m"))


def test_engines_are_importable_without_vllm_openai_and_torch() -> None:
    program = (
        "import sys, pipelines.engines, pipelines.engines.remote_engine, pipelines.engines.scripted_engine;"
        "print({'vllm', 'openai', 'torch', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@hypothesis.given(
    values=hypothesis.strategies.dictionaries(
        hypothesis.strategies.from_regex(r"[a-z_]{1,9}", fullmatch=True),
        hypothesis.strategies.none() | hypothesis.strategies.integers(0, 10**9) | hypothesis.strategies.text(),
    )
)
def test_what_a_request_refers_to_is_what_json_makes_of_it(values: dict[str, str | int | None]) -> None:
    assert _spaced(values) == json.dumps(values, ensure_ascii=False)


def test_a_fingerprint_is_the_hash_of_compact_json_with_sorted_keys() -> None:
    parts = {"b": ("ü", 1, 0.2, None), "a": {"y": [True], "x": "\n\u001f"}}
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert fingerprint_of(parts) == hashlib.sha256(text.encode()).hexdigest()[:32]
