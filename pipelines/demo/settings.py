"""The settings of the demo; the command line is made from them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal

from lgsrr.errors import ConfigError

STAND_IN = "stand-in"
"""What answers in place of a language model, and the name that it goes by everywhere."""
_MAY_CHANGE = frozenset({"out", "budget_usd", "port"})
"""Where and how the demo runs; whatever else changes is another demo, which wants another folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """One demo."""

    out: str = "runs/demo"
    """Folder for everything that it makes; the same command goes on where it stopped."""
    utterances: int = 240
    """Clips that are drawn for training, dev and test together."""
    new_clips: int = 36
    """Clips of another seed that are drawn to be classified at the end."""
    seed: int = 0
    """Of everything that is drawn."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs the video model: transformers, up in seconds, or vLLM, which takes most of a minute to start."""
    model: str = "small"
    """The video model: `small`, which comes with the project, or the folder of another that knows the drawn clips."""
    encoder: str = "minilm"
    """Text encoder of LGSRR: `minilm` comes with the installation."""
    epochs: int = 20
    """Epochs of a training run at most."""
    trials: int = 4
    """Configurations that the search tries, the paper's setting and text alone among them."""
    seeds: int = 2
    """Seeds of a configuration that stays in the search."""
    llm: str | None = None
    """Language model for discovery and ranking where OPENAI_API_KEY or OPENAI_BASE_URL is set; None: $OPENAI_MODEL,
    else gpt-4o-mini. Where neither is set, a stand-in answers by rules."""
    budget_usd: float = 0.5
    """What a real language model may cost at most, US dollars."""
    price_in: float | None = None
    """US dollars for a million tokens in, where that model's price is not known here; 0 for a server of your own."""
    price_out: float | None = None
    """US dollars for a million tokens out."""
    port: int = 0
    """Port on 127.0.0.1 of the stand-in for a language model; 0 takes a free one."""

    def __post_init__(self) -> None:
        for name, least, why in (
            ("utterances", 60, "each of the 12 intents is needed in training, dev and test"),
            ("new_clips", 36, "a sample has each of the 12 intents in each split"),
            ("epochs", 1, "something has to be learned"),
            ("trials", 1, "something has to be searched"),
            ("seeds", 1, "something has to be searched"),
            ("seed", 0, "seeds are counted from 0"),
            ("port", 0, "0 takes a free port"),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected {least} or more: {why}")
        for name in ("utterances", "new_clips"):
            if getattr(self, name) % 2:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected an even number: every text is said twice")
        if self.port > 65535:
            raise ConfigError(f"port is {self.port}; expected a port up to 65535, or 0 for a free one")
        if self.budget_usd < 0:
            raise ConfigError(f"budget_usd is {self.budget_usd}; expected 0 or more")

    @property
    def folder(self) -> Path:
        """Of everything."""
        return Path(self.out).expanduser()

    def identity(self, llm: str) -> dict[str, str]:
        """What makes this demo another than one of other settings; `llm` is who discovers and ranks."""
        settings = {k: v for k, v in dataclasses.asdict(self).items() if k not in _MAY_CHANGE}
        return {name: str(value) for name, value in {**settings, "llm": llm}.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llm:
    """Who discovers and ranks."""

    name: str
    where: str | None
    """Its address; None where it is the stand-in, whose port is not known before it runs."""
    price: tuple[float, float] | None = None
    """As given, or 0 and 0 for a server on this machine; None leaves it to what is known of the model."""

    @property
    def is_stand_in(self) -> bool:
        return self.where is None

    @property
    def identity(self) -> str:
        return STAND_IN if self.where is None else f"{self.name} at {self.where}"


def choose_llm(config: DemoConfig) -> Llm:
    """The real endpoint where the environment names one, else the stand-in.

    Raises ConfigError where the key is missing or the price of the model is not known.
    """
    from pipelines.endpoint import Endpoint
    from pipelines.prices import settled_price

    if not (os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")):
        if config.llm is not None:
            raise ConfigError(
                f"llm is {config.llm!r}, and neither OPENAI_API_KEY nor OPENAI_BASE_URL is set, so there is nobody to "
                "ask; set one of them, or leave --llm out and a stand-in answers by rules"
            )
        return Llm(name=STAND_IN, where=None)
    endpoint = Endpoint().resolved()
    endpoint.key()
    name = config.llm or os.environ.get("OPENAI_MODEL") or "gpt-4o-mini"
    given = (config.price_in, config.price_out)
    price = (0.0, 0.0) if given == (None, None) and endpoint.is_local else given
    settled_price(name, price_in=price[0], price_out=price[1], budget_usd=config.budget_usd)
    known = (price[0], price[1]) if price[0] is not None and price[1] is not None else None
    return Llm(name=name, where=endpoint.url, price=known)
