"""The words that the sample dataset is put together from: what eight people-in-a-room scenes sound and look like.

Intents come in pairs that say the same and look different. For each intent one aspect shows it (DECIDES), one speaks
for its mood, which another intent shares (SUPPORTS), and one tells nothing (NEUTRAL): so the text alone leaves two
answers, no single aspect settles everything, and which aspect matters depends on the utterance, as in real clips.
"""

from __future__ import annotations

from typing import NamedTuple


class Pair(NamedTuple):
    """Two intents that the same words can carry, and words that leave no doubt, per intent."""

    intents: tuple[str, str]
    either: tuple[str, ...]
    clear: tuple[tuple[str, ...], tuple[str, ...]]


PAIRS = (
    Pair(
        ("Praise", "Taunt"),
        (
            *("nice job", "well done", "that was quite a performance", "you really outdid yourself", "great work"),
            *("you must be so proud", "what a clever idea", "i have never seen anyone do it like that"),
            *("you certainly have a gift for this", "look at you, always the expert"),
        ),
        (
            ("i mean it, this is the best report we ever had", "you saved us all, and everybody knows it"),
            ("is that the best you can do", "my grandmother would have finished by now, and she is asleep"),
        ),
    ),
    Pair(
        ("Joke", "Warn"),
        (
            *("you are in so much trouble", "don't make me come over there", "one more word and you are out"),
            *("i know where you live", "you will regret this", "touch my lunch again and see what happens"),
            *("the boss is going to love this", "i would run if i were you", "try that again, i dare you"),
            "somebody is not going home tonight",
        ),
        (
            ("and then the duck says, put it on my bill", "i'm kidding, of course nobody sold your desk"),
            ("careful, the floor is wet right there", "stay back, that wire is still live"),
        ),
    ),
    Pair(
        ("Comfort", "Complain"),
        (
            *("it has been such a long day", "nobody said it would be this hard", "i know, it's never easy"),
            *("these things take so much out of a person", "what a week this has been", "it shouldn't be like this"),
            *("some days nothing goes right", "that is a lot for one person", "it just isn't fair"),
            "we have all been up since four",
        ),
        (
            ("it's all right, i'm here for as long as you need", "you did all that you could, don't blame yourself"),
            (
                "i have asked three times for a chair that doesn't wobble",
                "this coffee is cold again, every single time",
            ),
        ),
    ),
    Pair(
        ("Greet", "Leave"),
        (
            *("good evening, everyone", "all right, everybody", "good day to you all", "so, gentlemen, ladies"),
            *("well, here i go", "always a pleasure", "what a lovely party", "okay then, hello and goodbye"),
            *("peace, my friends", "you all look wonderful tonight"),
        ),
        (
            ("hi, you must be the new neighbour", "hey, long time no see, come here"),
            ("see you tomorrow, i have a train to catch", "i'd better get going before the rain starts"),
        ),
    ),
)
LABELS = tuple(sorted(intent for pair in PAIRS for intent in pair.intents))

OPENERS = ("", "", "", "oh, ", "well, ", "okay, ", "you know, ")
NAMES = ("glenn", "amy", "jonah", "dina", "mateo", "cheyenne", "garrett", "sandra", "marcus", "kelly")

RANKINGS = {
    "Praise": "IEA",
    "Taunt": "AEI",
    "Joke": "EIA",
    "Warn": "AEI",
    "Comfort": "IEA",
    "Complain": "EAI",
    "Greet": "IAE",
    "Leave": "AIE",
}
"""Short names of the aspects, most important first: the one that decides, the one that supports, the neutral one."""

DECIDES = {
    "Praise": (
        "shakes the other person's hand warmly and holds it for a moment",
        "pats a colleague on the back and gets a grateful nod in return",
        "raises a glass to the person opposite, and the others join in",
        "gives a colleague a high five across the table",
        "presents the work on the screen to the group and applauds its author",
    ),
    "Taunt": (
        "points a finger at someone across the room and claps slowly",
        "mimics somebody's walk with exaggerated swings of both arms",
        "leans back with crossed arms and flicks a crumpled note at the desk opposite",
        "bows in mock respect and waves a hand as if to dismiss the matter",
        "circles around somebody's chair and drums on its back with two fingers",
    ),
    "Joke": (
        "struggles to keep a straight face and then bursts out laughing",
        "winks, with one corner of the mouth twitching upwards",
        "wears a wide playful grin and wiggles both eyebrows",
        "pulls a silly face with puffed cheeks and crossed eyes",
        "holds back a giggle, lips pressed together and eyes sparkling",
    ),
    "Warn": (
        "holds up a flat palm and steps into the way",
        "lifts one index finger and shakes it slowly from side to side",
        "grabs somebody's sleeve and pulls it back from the edge",
        "plants both feet in front of the door and stretches out an arm",
        "taps the sign on the wall twice and then points at the floor",
    ),
    "Comfort": (
        "puts an arm around the shoulders of a friend who is crying",
        "sits down beside the other person and holds both of their hands",
        "hugs a friend for a long time and strokes their hair",
        "hands a tissue to the person on the sofa and stays close",
        "lays a hand on a friend's knee and listens until they look up",
    ),
    "Complain": (
        "rolls both eyes and lets out a long breath through pursed lips",
        "pouts, with a deeply wrinkled nose and drooping eyelids",
        "stares at the ceiling in exasperation, jaw hanging open",
        "grimaces as if something tasted sour and shakes the head",
        "looks worn out and fed up, cheeks blown out in a sigh",
    ),
    "Greet": (
        "walks up to a newcomer with open arms and kisses both cheeks",
        "makes a round of the table and says a few words to each guest",
        "meets the visitors at the entrance and leads them to their seats",
        "bumps fists with two friends who have just come in",
        "introduces a guest to the circle, and everybody turns to look",
    ),
    "Leave": (
        "picks up a coat and a bag and heads for the exit",
        "closes the laptop, pushes the chair in and walks off",
        "puts on a scarf while stepping backwards through the door",
        "gets up, checks the time and fishes the car keys from a pocket",
        "zips up a jacket, turns around and disappears down the hall",
    ),
}
"""For each intent, wordings under the aspect that decides it."""

SUPPORTS = {  # intent → aspect and mood, a key of MOODS
    "Praise": "E warm",
    "Comfort": "E warm",
    "Taunt": "E hard",
    "Warn": "E hard",
    "Joke": "I friendly",
    "Leave": "I parting",
    "Complain": "A restless",
    "Greet": "A lively",
}
MOODS = {
    "E warm": (
        "smiles gently, with soft eyes and relaxed brows",
        "has a kind look and a smile that reaches the eyes",
        "looks on tenderly, head tilted and mouth curved upwards",
        "beams, and the whole face lights up with affection",
    ),
    "E hard": (
        "frowns, with narrowed eyes and a tightly set jaw",
        "keeps up a cold stare and raises one eyebrow",
        "looks stern, lips thin and forehead creased",
        "scowls with lowered brows and does not blink",
    ),
    "I friendly": (
        "nudges a friend with an elbow, who laughs along",
        "looks around the circle for a reaction and gets a chuckle",
        "leans towards a friend as if sharing a secret",
        "swaps amused glances with the others on the couch",
    ),
    "I parting": (
        "has turned away from the others, who look after the speaker",
        "gives a last nod over one shoulder, and nobody follows",
        "lets go of a friend's hand while the rest go on talking",
        "speaks to the group from a growing distance",
    ),
    "A restless": (
        "throws both hands in the air and lets them fall",
        "slumps on a stool and drops a pile of papers",
        "paces up and down and tugs at a collar",
        "rubs a stiff neck and kicks lightly at an empty box",
    ),
    "A lively": (
        "waves a raised hand while crossing the whole room",
        "comes in with quick steps and takes off a hat",
        "spreads both arms and bounces on the heels",
        "hurries forward and sets down a bottle of wine",
    ),
}
NEUTRAL = {
    "A": (
        "stands near the counter with both hands resting on it",
        "sits upright in a chair and barely moves at all",
        "shifts from one foot to the other while talking",
        "faces forward with both arms hanging loosely",
        "keeps hold of a paper cup and turns it in one hand",
    ),
    "E": (
        "keeps an even, attentive expression for the whole clip",
        "shows little emotion, with the gaze directed forward",
        "blinks a few times and otherwise looks composed",
        "has a calm face that is partly turned from the camera",
        "looks at ease, with no marked change of expression",
    ),
    "I": (
        "talks to one other person, who stands an arm's length away",
        "speaks while the others in the room listen quietly",
        "keeps eye contact with the listener from across the desk",
        "takes turns in talking with someone who is out of the frame",
        "addresses the people nearby without touching anyone",
    ),
}
"""Wordings under an aspect that tell nothing of the intent."""

SPEAKERS = (
    *("The man in the blue vest", "The woman in the grey coat", "The younger man", "The woman with glasses"),
    *("The man with the beard", "The woman at the front", "The older man", "The speaker in the striped shirt"),
    *("The woman with curly hair", "The taller man"),
)
SURROUNDINGS = {
    "A": (
        "The movements are easy to see, as the camera stays at a medium distance.",
        "Behind this, a second person walks past carrying a tray, and a phone rings somewhere.",
        "The lights are bright, and shelves with all kinds of goods fill the background.",
        "Other people in the room go on with their own work and hardly look up.",
        "The scene takes place in an office with large windows and a row of desks.",
        "A table with plates and flowers stands in between, so the legs are hidden from view.",
    ),
    "E": (
        "The listener's face shows mild interest, and the mood of the room is hard to read.",
        "The face is mostly seen from the side, and some hair covers a part of it.",
        "The camera cuts to a close view, so that the features are well lit and clear.",
        "A second person in the background looks down at a phone with a blank expression.",
        "The people around have blank faces and look in several other directions.",
        "The expression builds up slowly and then lasts until the very end of the clip.",
    ),
    "I": (
        "There are four people in the room, and together they form a loose circle.",
        "Someone passes between them with a box and briefly blocks the view of the camera.",
        "They seem to know each other, judging by how near to one another they stand.",
        "Two more people are visible at the back and take no part in the conversation.",
        "The exchange is short, and the next shot shows the whole room from above.",
        "It happens in a living room with a lamp, a sofa and a low table.",
    ),
}
