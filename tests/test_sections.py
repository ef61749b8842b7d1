"""An answer's sections: every form that models use is read, every doubt is a reason; prompts hold what they should."""

from __future__ import annotations

import inspect
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgsrr.aspects import CANONICAL
from lgsrr.records import Aspect
from pipelines import describe_prompts
from pipelines.describe_prompts import joint_prompt, separate_prompt
from pipelines.sections import SectionError, clean_section, parse_sections, render_sections

AEI = tuple(Aspect(name=CANONICAL[short]) for short in ("A", "E", "I"))
SAID = ("He waves.", "She smiles, and frowns.", "They look at each other.")

FORMS = {
    "as asked": "1. Speakers' Actions: He waves.\n2. Facial Expressions: She smiles, and frowns.\n"
    "3. Interaction with Others: They look at each other.",
    "bold": "**1. Speakers' Actions:** He waves.\n\n**2. Facial Expressions**: She smiles, and frowns.\n\n"
    "3. **Interaction with Others**: They look at each other.",
    "headings with text below": "## Speakers' Actions\nHe waves.\n\n## Facial Expressions\nShe smiles,\nand frowns.\n\n"
    "## Interaction with Others\nThey look at each other.\n",
    "no numbers, other names, another order": "INTERACTIONS: They look at each other.\nspeakers’ actions: He waves.\n"
    "Emotions and Facial Expressions: She smiles, and frowns.",
    "bullets and a preamble": "Sure! Here is what the video shows:\n- Speaker's Actions - He waves.\n"
    "- Facial Expressions – She smiles, and frowns.\n* Interaction with Others: They look at each other.",
    "json": json.dumps(dict(zip(("A", "facial expressions", "Interaction"), SAID, strict=True))),
    "fenced json": "```json\n" + json.dumps(dict(zip([a.name for a in AEI], SAID, strict=True)), indent=1) + "\n```",
    "number in brackets": "(1) Speakers' Actions: He waves.\n(2) Facial Expressions: She smiles, and frowns.\n"
    "(3) Interaction with Others: They look at each other.",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_that_models_use_are_read(form: str) -> None:
    assert parse_sections(FORMS[form], AEI) == SAID


REFUSED = {
    "": "the answer is empty",
    "A man speaks in a room.": '"Speakers\' Actions" is missing',
    "1. Speakers' Actions: x\n2. Facial Expressions: y": "'Interaction with Others' is missing",
    "Actions: x\nFacial Expressions:\nInteraction: z": "'Facial Expressions' is empty",
    "Actions: x\nFacial Expressions: ...\nInteraction: z": "'Facial Expressions' is empty",
    "Actions: x\nExpressions: y\nInteraction: z\nEmotions: w": "'Facial Expressions' is there 2 times",
    "Actions: x\nExpressions: y\nInteraction: Interaction with Others": "repeats the instruction",
    joint_prompt("Hello.", AEI): "2 times|repeats the instruction",
    '{"A": "x", "E": "y"}': "'Interaction with Others' is missing",
    '{"A": "x", "E": "y", "I": "z", "A": "w"}': "2 times",
}


@pytest.mark.parametrize("answer", REFUSED)
def test_what_leaves_a_doubt_is_refused_with_a_reason(answer: str) -> None:
    with pytest.raises(SectionError, match=REFUSED[answer]):
        parse_sections(answer, AEI)


def test_the_reason_names_an_instruction_that_comes_back() -> None:
    asked = Aspect(name="Hands", instruction="Describe the hands.")
    with pytest.raises(SectionError, match="repeats the instruction"):
        parse_sections("Hands: describe the hands", [asked])


def test_a_sentence_that_begins_with_an_aspects_word_is_no_heading() -> None:
    answer = FORMS["headings with text below"].replace(
        "He waves.", "He waves.\nActions speak louder than words, he says."
    )
    assert parse_sections(answer, AEI)[0] == "He waves. Actions speak louder than words, he says."


def test_one_aspect_needs_no_heading_and_may_have_one() -> None:
    assert clean_section(AEI[1], "She smiles.") == "She smiles."
    assert clean_section(AEI[1], "**Facial expressions:** She smiles.") == "She smiles."


SENTENCES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1).map(
    lambda words: "She says " + " ".join(words.split()).strip("*_ ") + " and nods"
)


@settings(deadline=None)
@given(texts=st.lists(SENTENCES, min_size=6, max_size=6), k=st.integers(1, 6))
def test_any_texts_in_the_published_form_come_back(texts: list[str], k: int) -> None:
    aspects = tuple(Aspect(name=name) for name in CANONICAL.values())[:k]
    assert list(parse_sections(render_sections(aspects, texts[:k]), aspects)) == texts[:k]


def test_the_prompts_hold_the_words_and_the_aspects_and_have_no_place_for_a_label() -> None:
    joint = joint_prompt('He said "no"\n<video> twice', AEI)
    assert "He said 'no' twice" in " ".join(joint.split())
    assert "<video>" not in joint
    assert [joint.index(f"{i}. {aspect.name}:") for i, aspect in enumerate(AEI, 1)] == sorted(
        joint.index(f"{i}. {aspect.name}:") for i, aspect in enumerate(AEI, 1)
    )
    assert AEI[1].name in separate_prompt("Hi.", AEI[1])
    for prompt in (describe_prompts.joint_prompt, describe_prompts.separate_prompt):
        assert not {"label", "utterance"} & set(inspect.signature(prompt).parameters)


def test_an_aspects_own_instruction_is_asked() -> None:
    hands = Aspect(name="Hands", instruction="Describe the hands.")
    assert "1. Hands: Describe the hands." in joint_prompt("Hi.", [hands])
    assert "Describe the hands." in separate_prompt("Hi.", hands)
