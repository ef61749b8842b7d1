"""Engines: what looks at a clip and says what it sees. One interface, four kinds behind it.

    engine = make_engine(EngineConfig(engine="vllm", model="DAMO-NLP-SG/VideoLLaMA2-7B-16F"))
    await engine.start()
    answers = await engine.answer(ask)               # one for each prompt; a CallError where one failed

`vllm` and `transformers` run in the actor, `remote` asks a server, `scripted` answers by rules and fails when it is
told to.
"""

from __future__ import annotations

from lgsrr.errors import ConfigError
from pipelines.calls import Asks

from .config import EngineConfig, EngineName, Scripted
from .interface import Ask, Engine, EngineDead, Said, stream

__all__ = ["Ask", "Engine", "EngineConfig", "EngineDead", "EngineName", "Said", "Scripted", "make_engine", "stream"]


def make_engine(config: EngineConfig, *, asker: Asks | None = None) -> Engine:
    """The engine that `config` names, not yet started. `asker` makes the calls of a remote one."""
    if config.engine == "vllm":
        from .vllm_engine import VllmEngine

        return VllmEngine(config)
    if config.engine == "transformers":
        from .transformers_engine import TransformersEngine

        return TransformersEngine(config)
    if config.engine == "remote":
        from .remote_engine import RemoteEngine

        if asker is None:
            raise ConfigError("engine 'remote' needs something that asks; give make_engine an `asker`")
        return RemoteEngine(config, asker)
    from .scripted_engine import ScriptedEngine

    return ScriptedEngine(config)
