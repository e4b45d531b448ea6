"""Makes the committed ``splits.json``: which concepts robot data and web data may show."""

from __future__ import annotations

import json
import random
from pathlib import Path

from vla.benchmarks.tabletop.web.art import STYLES, has_art
from vla.benchmarks.tabletop.web.concepts import Concept, concepts, object_concepts

ROBOT_CONCEPTS = 80
UNSEEN_CONCEPTS = 16
# Members of the groups of the emergent suite: each has a short name and is distinct at 64 px.
GROUPS = {
    "digits": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "icons": (
        "red heart",
        "star",
        "sun",
        "cross mark",
        "snowflake",
        "fire",
        "crescent moon",
        "musical note",
    ),
    "flags": tuple(
        f"flag of {c}"
        for c in (
            "japan",
            "brazil",
            "canada",
            "switzerland",
            "greece",
            "kenya",
            "south korea",
            "jamaica",
        )
    ),
    "people": (
        "cook",
        "farmer",
        "astronaut",
        "police officer",
        "judge",
        "man with white hair",
        "woman with red hair",
        "smiling face with sunglasses",
        "angry face",
        "loudly crying face",
    ),
    "shapes": tuple(
        f"{c} {f}"
        for c in ("red", "orange", "yellow", "green", "blue", "purple", "brown")
        for f in ("circle", "square")
    ),
}


def make_splits(seed: int = 0) -> dict[str, list[str]]:
    """Draw the split.

    Robot concepts are drawn category by category in turn. Their names have at most two words, and
    no two names share a word.

    Returns:
        - ``robot``: 80 concept keys.
        - ``web_only``: keys of the other objects that exist in all styles.
        - ``held_out_art``: one ``key:style`` of each robot concept; robot data never shows it.
        - ``unseen``: 16 of the web-only objects, drawn category by category. Their names are one
          word, which no robot concept has.
        - ``digits``, ``icons``, ``flags``, ``people``, ``shapes``: keys of ``GROUPS``.

    Raises:
        ValueError: too few concepts fit these rules.
    """
    rng = random.Random(seed)
    pool = [c for c in object_concepts() if _has_all_art(c)]
    by_category: dict[str, list[Concept]] = {}
    for concept in pool:
        by_category.setdefault(concept.category, []).append(concept)
    for members in by_category.values():
        rng.shuffle(members)
    used_words: set[str] = set()
    robot = _take_robot_concepts(by_category, used_words)
    held_out = [f"{c.key}:{rng.choice(STYLES)}" for c in robot]
    unseen = _take_unseen_concepts(by_category, used_words)
    by_name = {c.name: c.key for c in concepts().values() if _has_all_art(c)}
    return {
        "robot": [c.key for c in robot],
        "web_only": [c.key for c in pool if c not in robot],
        "held_out_art": held_out,
        "unseen": [c.key for c in unseen],
        **{name: [by_name[n] for n in names] for name, names in GROUPS.items()},
    }


def _has_all_art(concept: Concept) -> bool:
    return all(has_art(concept.key, style) for style in STYLES)


def _take_robot_concepts(
    by_category: dict[str, list[Concept]], used_words: set[str]
) -> list[Concept]:
    """Remove the robot concepts from ``by_category`` and add the words of their names."""
    taken: list[Concept] = []
    while len(taken) < ROBOT_CONCEPTS:
        before = len(taken)
        for members in by_category.values():
            while members and len(taken) < ROBOT_CONCEPTS:
                concept = members.pop()
                words = concept.name.replace("-", " ").split()
                if len(words) <= 2 and concept.name.isascii() and not used_words & set(words):
                    used_words |= set(words)
                    taken.append(concept)
                    break
        if len(taken) == before:
            raise ValueError(f"only {before} concepts fit the rules; decrease ROBOT_CONCEPTS")
    return taken


def _take_unseen_concepts(
    by_category: dict[str, list[Concept]], used_words: set[str]
) -> list[Concept]:
    """Remove the unseen concepts from ``by_category`` and add the words of their names."""

    def fits(concept: Concept) -> bool:
        one_word = concept.name.isascii() and concept.name.isalpha()
        return one_word and concept.name not in used_words

    taken: list[Concept] = []
    while len(taken) < UNSEEN_CONCEPTS:
        for members in by_category.values():
            fitting = [c for c in members if fits(c)]
            if fitting and len(taken) < UNSEEN_CONCEPTS:
                taken.append(fitting[-1])
                members.remove(fitting[-1])
                used_words.add(fitting[-1].name)
    return taken


if __name__ == "__main__":
    path = Path(__file__).parent / "splits.json"
    path.write_text(json.dumps(make_splits(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
