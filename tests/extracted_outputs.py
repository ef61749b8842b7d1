"""Outputs of extraction, made without running one: what the tests of the report and of the tracked run read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lgsrr.records import SPLITS, Utterance
from pipelines.outcomes import Outcome, Receipt
from pipelines.output import Output
from pipelines.rank import shuffled

ASPECTS = ("Speakers' Actions", "Facial Expressions", "Interaction with Others")
EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</style><style>body{display:none}</style>",
    "</blockquote></section><!-- ",
    "javascript:alert(3) &lt;script&gt;",
    "\x00\x1b[31m \u202e right to left \ud800",
)


def receipt(mark: str = "f", **more: Any) -> Receipt:
    whole: dict[str, Any] = {
        "model": "m", "prompt_version": "p-1", "input_tokens": 100, "output_tokens": 10, "cost_usd": 0.25,
        "attempts": 1, "waited_s": 2.0, "created_at": 1.79e9, "frames": (1, 2, 3), "raw_answer": "raw",
    }  # fmt: skip
    return Receipt(fingerprint=mark, **{**whole, **more})


def described(name: str, texts: Sequence[str] = ("nods", "smiles", "turns"), **more: Any) -> Outcome:
    return Outcome(
        id=name, stage="describe", status="done", receipts=(receipt(**more),), aspects=ASPECTS, texts=tuple(texts)
    )  # fmt: skip


def ranked(name: str, order: Sequence[str], shown: Sequence[str] = ASPECTS) -> Outcome:
    return Outcome(
        id=name, stage="rank", status="done", receipts=(receipt("r", frames=()),), aspects=tuple(order),
        shown=tuple(shown),
    )  # fmt: skip


def set_aside(name: str, reason: str, detail: str = "d", **more: Any) -> Outcome:
    marks = (receipt("q", **{"cost_usd": 0.5, **more}),)
    return Outcome(
        id=name, stage="describe", status="quarantined", receipts=marks, reason=reason, detail=detail, advice="Mend it."
    )  # fmt: skip


def utterances(count: int) -> list[Utterance]:
    """Every second of train, every fourth of dev and of test."""
    splits = (SPLITS[0], SPLITS[0], *SPLITS[1:])
    return [
        Utterance(id=f"u{i}", text=f"says {i}", split=splits[i % 4], label="Greet", video=f"u{i}.mp4")
        for i in range(count)
    ]


def write_output(path: Path, count: int = 40) -> Output:
    """A finished extraction: u1 has no clip, u2 breaks the decoder, the last one is untouched, and all else is done."""
    output, said = Output(str(path)), utterances(count)
    output.write_utterances(said)
    listed = [{"name": name, "instruction": f"Look at {name}.", "frequency": 9 - i} for i, name in enumerate(ASPECTS)]
    table = [{"name": name, "frequency": 9, "said": [name, name.lower()]} for name in (*ASPECTS, "Scene Description")]
    found = {"by": "llm", "model": "gpt", "answers": 9, "refused": ["no"], "merged_by": "rules", "table": table}
    found |= {"cost_usd": 0.125, "input_tokens": 70, "output_tokens": 7}
    output.write_json("aspects.json", {"aspects": listed, "found": found})
    good = [u for u in said[:-1] if u.id not in ("u1", "u2")]
    output.commit([described(u.id) for u in good])
    output.commit([set_aside("u1", "no_clip", "nowhere"), set_aside("u2", "decoder", "killed", raw_answer=None)])
    orders = [(u.id, shuffled(ASPECTS, u.id, 0)) for u in good if u.split == "train"]
    output.commit([ranked(name, ASPECTS, shown) for name, shown in orders])
    stage = {"rows": count, "before": 0, "done": count - 3, "set_aside": 2, "seconds": 10.0}
    run = {"started": 1.79e9, "finished": 1.79e9 + 90, "command": "python pipelines/extract.py --out x"}
    runs = [{**run, "stages": {"describe": stage}}]
    output.write_json("manifest.json", {"complete": True, "cost_of_replaced_usd": 1.0, "runs": runs})
    return output


def write_evil_output(path: Path) -> Output:
    """An extraction in which every text that is not ours tries to be markup."""
    output = Output(str(path))
    plain = [text.encode(errors="replace").decode() for text in EVIL]  # Parquet holds no half characters
    said = [
        Utterance(id=f"u{i}{text}", text=text, split=SPLITS[i % 3], label=text, video=text)
        for i, text in enumerate(plain)
    ]
    output.write_utterances(said)
    aspects = [{"name": text, "instruction": text, "frequency": 1} for text in plain[:3]]
    table = [{"name": text, "frequency": 1, "said": plain} for text in plain]
    found = {"by": "llm", "model": plain[0], "answers": 1, "refused": plain, "merged_by": plain[1], "table": table}
    output.write_json("aspects.json", {"aspects": aspects, "found": found})
    names = tuple(plain[:3])
    for u in said[:4]:
        made = receipt(model=u.text, prompt_version=u.text, revision=u.text)
        done = Outcome(id=u.id, stage="describe", status="done", receipts=(made,), aspects=names, texts=(u.text,) * 3)
        output.commit([done])
        order = Outcome(id=u.id, stage="rank", status="done", receipts=(made,), aspects=names, shown=names[::-1])
        output.commit([order] if u.split == "train" else [])
    for u in said[4:]:
        output.commit([set_aside(u.id, u.text, u.text, raw_answer=u.text)])
    run = {"started": 1.79e9, "finished": 1.79e9 + 9, "command": f"python x --llm '{plain[0]}'", "stages": {}}
    output.write_json("manifest.json", {"complete": True, "runs": [run]})
    return output
