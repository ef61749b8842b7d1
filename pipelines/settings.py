"""All settings of an extraction; the command line is made from them."""

from __future__ import annotations

import dataclasses
from typing import Literal, cast

from lgsrr.errors import ConfigError

from .outcomes import STAGES, Stage

EngineName = Literal["vllm", "transformers", "remote", "scripted"]
Prompting = Literal["joint", "separate"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Clips and text in, ranked descriptions out."""

    dataset: str
    """`mintrec2`, `iemocap_da`, `sample`, or a name for your own data."""
    out: str
    """Where everything is written: a folder or s3:// prefix. The same command goes on where it stopped."""
    data: str | None = None
    """Folder of released tables, your own CSV, TSV, JSONL, Parquet, or what an earlier extraction wrote."""
    videos: str | None = None
    """Folder or s3:// prefix with the clips, for utterances whose table names no path or a relative one."""
    stages: str = "discover,describe,rank"
    """Which of discover, describe, rank; what is left out takes what the data has."""
    limit: int | None = None
    """Take the first so many utterances of each split that a stage reads."""

    aspects: str | None = None
    """Names of the aspects in place of discovery: A,E,I,TMS,IS,SD are known by these short names."""
    k: int = 3
    """Discovery keeps so many aspects, the most frequent."""
    rounds: int = 10
    """Discovery asks so often, each time over another subset of the training split."""
    subset: int = 20
    """Utterances in each of discovery's subsets."""

    engine: EngineName = "vllm"
    """What describes: `vllm` in the actor, `transformers` there (VideoLLaMA2 alone, where vLLM cannot be installed),
    `remote` (an OpenAI-compatible server that takes frames), `scripted`."""
    model: str = "DAMO-NLP-SG/VideoLLaMA2-7B-16F"
    """The video model: a folder, a name on the hub, or the remote server's name for it."""
    model_url: str | None = None
    """Address of the remote engine's server, such as http://host:8000/v1."""
    script: str | None = None
    """JSON file with the behaviour of the scripted engine: seconds_per_clip, lanes, faults, exit_after."""
    prompting: Prompting = "joint"
    """All aspects in one prompt, as published, or one prompt for each on the same vision features."""
    frames: int = 16
    """Frames of a clip that the model looks at."""
    max_side: int | None = None
    """Frames are scaled down to this longest side before they travel, pixels; None leaves them as they are."""
    dtype: str = "auto"
    """Of the video model's weights: auto, bfloat16, float16, float32."""
    max_new_tokens: int = 512
    """Longest answer of the video model, tokens."""
    max_model_len: int | None = None
    """Longest prompt and answer together that the engine makes room for, tokens; None leaves it to the model."""
    canary: Literal["on", "off"] = "on"
    """The video model describes a small clip before it serves; `off` is for random weights."""
    engines: int = 1
    """Engines side by side (actors, each with its own GPUs)."""
    gpus_per_engine: float | None = None
    """GPUs of an engine; None takes one where the cluster has any, else runs on CPUs."""
    decoders: int = 2
    """Actors that decode clips, a CPU each."""
    clips_in_flight: int = 32
    """Clips that one engine has in work at once."""

    llm: str = "gpt-3.5-turbo"
    """The language model that discovers and ranks; the default is the paper's."""
    base_url: str | None = None
    """Address of its OpenAI-compatible endpoint; None: OPENAI_BASE_URL, else OpenAI's own."""
    key_file: str | None = None
    """File that holds the key; None: OPENAI_API_KEY."""
    batch: bool = False
    """Rank through the Batch API, at half the price and within a day; what it leaves is asked live."""
    rpm: int | None = None
    """Requests a minute, of the whole cluster to this model."""
    tpm: int | None = None
    """Tokens a minute, of the whole cluster to this model."""
    concurrency: int = 64
    """Calls at once, of the whole cluster to this model."""
    budget_usd: float | None = None
    """Hard limit on what this output may cost in all, runs before this one included, US dollars."""
    price_in: float | None = None
    """US dollars for a million tokens in, where the model's price is not known here."""
    price_out: float | None = None
    """US dollars for a million tokens out."""
    attempts: int = 6
    """Tries of a call before its utterance is set aside."""
    timeout_s: float = 120.0
    """Longest that one call may take, seconds."""
    callers: int = 2
    """Actors that call the language model."""

    seed: int = 0
    """Of subsets and of the order in which aspects are shown."""
    retry_quarantined: bool = False
    """Take up utterances that were set aside."""
    leave_out_quarantined: bool = False
    """Write utterances.parquet without those that could not be described, so that training takes the rest."""
    explain: bool = False
    """Print what this command would do and why, and start nothing."""
    export: Literal["none", "released"] = "none"
    """`released` also writes the tables in the authors' layout, under `<out>/released`."""
    runs: str = "runs"
    """Folder of the local tracking store."""
    experiment: str | None = None
    """MLflow experiment; None is lgsrr-<dataset>-extraction."""

    def __post_init__(self) -> None:
        asked = [name.strip() for name in self.stages.split(",") if name.strip()]
        unknown = [name for name in asked if name not in STAGES]
        if unknown or not asked:
            raise ConfigError(f"stages is {self.stages!r}; expected some of {','.join(STAGES)}")
        positive = (
            "limit",
            "k",
            "rounds",
            "subset",
            "frames",
            "max_new_tokens",
            "max_model_len",
            "engines",
            "decoders",
        )
        for name in (*positive, "clips_in_flight", "rpm", "tpm", "concurrency", "attempts", "callers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; expected 1 or more")
        for name in ("budget_usd", "price_in", "price_out", "gpus_per_engine"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} is {value}; expected 0 or more")
        if (self.price_in is None) != (self.price_out is None):
            raise ConfigError("price_in and price_out belong together; give both, or neither")
        if self.engine == "remote" and self.model_url is None:
            raise ConfigError("engine is 'remote' and model_url is not given; expected the address of its server")

    @property
    def stage_list(self) -> tuple[Stage, ...]:
        """The stages asked for, in the order in which they run."""
        asked = {name.strip() for name in self.stages.split(",")}
        return cast("tuple[Stage, ...]", tuple(name for name in STAGES if name in asked))
