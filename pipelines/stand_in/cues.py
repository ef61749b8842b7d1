"""What shows an intent, by a small lexicon: which words in a description speak for which intent.

A person who ranks aspects knows that a wave of the hand greets and that a frown makes praise a taunt. The stand-in has
this list in place of such knowledge, and nothing else: it reads the request's own text, and knows no utterance and no
truth. Intents that are not listed have no cues.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SMILE = r"smil|grin|beam|laugh"
_FROWN = r"frown|scowl|glar|sneer|angr"
_SAD = r"\bsad|weep|tear\b|sobb|cry"
_FACING = r"fac(?:e|ing) (?:each|one|to)|towards? (?:each|the) other|eye contact"
_BACK = r"\bback\b|turn(?:s|ed)? away|avoid"
_ALONE = r"alone|nobody|no one|no other"
_HEAD_SHAKEN = r"shak\w*\W+(?:the|his|her|their)\W+head|shake of denial"
_HANDS_SHAKEN = r"handshak|shak\w*\W+hands"

_CUES: dict[str, tuple[tuple[str, str], ...]] = {
    "agree": (("A", r"\bnod"),),
    "refuse": (("A", _HEAD_SHAKEN),),
    "oppose": (("A", _HEAD_SHAKEN), ("E", _FROWN)),
    "greet": (("A", r"\bwav"),),
    "leave": (("A", r"\bwalk|\bstrid|\bgone"),),
    "praise": (("E", _SMILE),),
    "taunt": (("E", _FROWN),),
    "comfort": (("E", _SAD),),
    "gloat": (("E", _SMILE),),
    "promise": (("I", _HANDS_SHAKEN),),
    "warn": (("I", _BACK),),
    "evade": (("I", _BACK),),
    "plead": (("I", _FACING),),
    "lament": (("I", _ALONE),),
    "thank": (("E", _SMILE),),
    "complain": (("E", _FROWN), ("TMS", r"\bloud|\bharsh|\braised")),
    "criticize": (("E", _FROWN), ("TMS", r"\bharsh|\bsharp")),
    "apologise": (("E", _SAD), ("TMS", r"\bsoft|\bquiet|\blow")),
    "joke": (("E", _SMILE), ("TMS", r"\blight|\bplayful")),
}
"""Intent → the aspect (by its short name) and the words in it that show the intent."""


def shows(label: str, short: str | None, description: str) -> bool:
    """Whether a description under the aspect `short` holds what shows the intent `label`."""
    cues = _CUES.get(_intent(label), ())
    return any(aspect == short and re.search(words, description, re.IGNORECASE) for aspect, words in cues)


def telling(labels: Sequence[str]) -> list[str]:
    """Short names of the aspects that tell any of the intents, those that tell most of them first."""
    told = [aspect for label in labels for aspect, _ in _CUES.get(_intent(label), ())]
    return sorted(set(told), key=lambda aspect: (-told.count(aspect), told.index(aspect)))


def _intent(label: str) -> str:
    """As the lexicon spells it."""
    word = label.strip(" .\"'").casefold()
    return {"apologize": "apologise", "criticise": "criticize"}.get(word, word)
