"""What the stand-in says, by rules that anybody can follow: to rank, to find aspects, to merge names, to anything.

Rankings follow what stands in the request and nothing else: first an aspect whose description shows the label (by the
lexicon `cues`), then one that shares words with it, then one that says more; the order in which aspects are shown
changes nothing. Discovery names the aspects that tell the intents of the request, and others by chance.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

from lgsrr.aspects import CANONICAL, canonical
from lgsrr.records import Aspect
from pipelines.calls import Json
from pipelines.describe_prompts import instruction_of

from .cues import shows, telling
from .schemas import items_of, schema_of, simplest, text_of

_SPELLINGS: dict[str, tuple[str, ...]] = {
    "A": ("Speakers' Actions", "speakers' actions", "Speaker Actions", "Body Language", "Body Movements"),
    "E": ("Facial Expressions", "facial expressions", "Facial Expression", "Emotions and Facial Expressions"),
    "I": ("Interaction with Others", "Interactions with Others", "interaction with others", "Social Interaction"),
    "TMS": ("Tone and Manner of Speaking", "tone and manner of speaking", "Tone of Voice", "Vocal Tone"),
    "IS": ("Identity and Status", "Identities and Status", "Social Status"),
    "SD": ("Scene Description", "Scene Descriptions", "Scene", "Setting"),
}
_FREQUENCY = {"A": 10, "E": 10, "I": 9, "TMS": 7, "IS": 4, "SD": 4}
"""In how many of ten discoveries an aspect is found."""
_FILLERS = frozenset(
    {"about", "also", "another", "from", "have", "into", "might", "others", "seems", "some", "speaker", "that", "their"}
    | {"them", "there", "they", "this", "video", "were", "which", "while", "with"}
)
_LABEL = re.compile(
    r"^\W*(?:the\s+)?(?:speaker's\s+)?(?:intent(?:ion)?|label|dialogue act)\b[^:\n]*:\s*(.+)$", re.I | re.M
)
_INTENTS = re.compile(r"\bintents are: ([^.\n]+)", re.I)
_WORD = re.compile(r"[a-z]{4,}")


def content_for(body: Json) -> str:
    """The content of the message that answers a request."""
    text = text_of(body)
    schema = schema_of(body, text)
    if schema is None:
        return f"This stand-in has read {len(text.split())} words and answers in one sentence."
    ranked = items_of(schema, "ranking")
    if ranked is not None and "enum" in ranked:
        return json.dumps({**simplest(schema), "ranking": ranking(ranked["enum"], text)})
    if items_of(schema, "aspects") is not None:
        return json.dumps({"aspects": aspects(body)})
    grouped = items_of(schema, "groups")
    if grouped is not None:
        return json.dumps({"groups": groups(grouped, text)})
    return json.dumps(simplest(schema))


def ranking(names: Sequence[str], text: str) -> list[str]:
    """The aspects, most important first."""
    found = _LABEL.search(text)
    label = found.group(1) if found else ""
    return sorted(names, key=lambda name: _unimportance(name, _described(name, text), label))


def _unimportance(name: str, description: str, label: str) -> tuple[bool, int, str]:
    words = _stems(description)
    tie = hashlib.sha256(f"{name}|{description}".encode()).hexdigest()
    return not shows(label, _meaning(name), description), -(10 * len(words & _stems(label)) + len(words)), tie


def _stems(text: str) -> set[str]:
    """The words that mean something, each by its first five letters, so that "complains" is "complaining"."""
    return {word[:5] for word in _WORD.findall(text.lower()) if word not in _FILLERS}


def _described(name: str, text: str) -> str:
    """What a request says of an aspect: behind its name and a colon, or in the line below its name."""
    for line in re.finditer(rf"^\W*(?:\d+\W+)?{re.escape(name)}\b['\"*_`\]\)]*[ \t]*(:?)(.*)$", text, re.I | re.M):
        said: str = line.group(2).strip(" *_#")
        if not said:
            said = text[line.end() :].lstrip().partition("\n")[0]
        if said:
            return said
    return ""


def aspects(body: Json) -> list[dict[str, str]]:
    """Some of the six aspects, in spellings that differ from request to request: those that tell one of the intents
    which the request lists, always, and the others by chance."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    listed = _INTENTS.search(text_of(body))
    certain = telling(listed.group(1).split(",")) if listed else []
    found = []
    for short in (*certain, *(short for short in CANONICAL if short not in certain)):
        place = 2 * list(CANONICAL).index(short)
        chance, spelling = digest[place], digest[place + 1]
        if short in certain or chance % 10 < _FREQUENCY[short]:
            names = _SPELLINGS[short]
            asked = instruction_of(Aspect(name=CANONICAL[short]))
            found.append({"name": names[spelling % len(names)], "instruction": asked})
    return found


def groups(item: Json, text: str) -> list[Json]:
    """The names of a request, those which mean the same together, in the form that the schema asks for."""
    together: dict[str, list[str]] = {}
    for name in _names_in(item, text):
        together.setdefault(_meaning(name), []).append(name)
    return [_group(item, meaning, names) for meaning, names in together.items()]


def _group(item: Json, meaning: str, names: list[str]) -> Json:
    if item.get("type") == "array":
        return names
    title = CANONICAL.get(meaning, names[0])
    members = next((key for key, field in item.get("properties", {}).items() if field.get("type") == "array"), None)
    filled = {key: title if title in field.get("enum", [title]) else names[0] for key, field in _texts(item).items()}
    return {**simplest(item), **filled, **({members: names} if members else {})}


def _texts(item: Json) -> dict[str, Json]:
    return {key: field for key, field in item.get("properties", {}).items() if field.get("type") == "string"}


def _names_in(item: Json, text: str) -> list[str]:
    """The names to be grouped: the schema's enum, else the last JSON list of texts, else the lines of a list."""
    fields = [item, *item.get("properties", {}).values()]
    for field in (*fields, *(field.get("items", {}) for field in fields)):
        if "enum" in field:
            return list(field["enum"])
    for listed in reversed(re.findall(r"\[\s*\"[^\[\]]*\"\s*\]", text)):
        try:
            return list(dict.fromkeys(json.loads(listed)))
        except ValueError:
            continue
    lines = re.findall(r"^\s*(?:[-*•]|\d+[.)])\s+(.+?)\s*$", text, re.M)
    return list(dict.fromkeys(re.split(r"\s*[:(]|\s+[–—-]\s+", line)[0].strip("\"'* ") for line in lines))


def _meaning(name: str) -> str:
    """The short name of one of the six, else the name without case and plural."""
    known = canonical(name)
    for short, names in _SPELLINGS.items():
        if known == CANONICAL[short] or name.casefold() in map(str.casefold, names):
            return short
    return " ".join(word.removesuffix("s") for word in name.casefold().split())
