"""The seeded rule behind the committed ``splits.json``: which concepts a robot may ever see."""

from __future__ import annotations

import json
import random
from pathlib import Path

from vla.web.knowledge import Concept, concepts, object_concepts
from vla.web.pictures import STYLES, has_picture

ROBOT_CONCEPTS = 80
UNSEEN_CONCEPTS = 16
# what emergent suites ask for, chosen by eye: they look different at 64 px and have one short name
GROUPS = {
    "digits": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "icons": ("red heart", "star", "sun", "cross mark", "snowflake", "fire", "crescent moon", "musical note"),
    "flags": tuple(f"flag of {c}" for c in ("japan", "brazil", "canada", "switzerland", "greece", "kenya", "south korea", "jamaica")),
    "people": (
        "cook", "farmer", "astronaut", "police officer", "judge", "man with white hair", "woman with red hair", "smiling face with sunglasses",
        "angry face", "loudly crying face",
    ),
    "shapes": tuple(f"{c} {f}" for c in ("red", "orange", "yellow", "green", "blue", "purple", "brown") for f in ("circle", "square")),
}  # fmt: skip


def make_splits(seed: int = 0) -> dict[str, list[str]]:
    """Draw the split anew: round-robin over categories, no two robot names sharing a word, names of at most two words.

    Returns:
        ``robot``: 80 concept keys; ``web_only``: the other objects that exist in all styles; ``held_out_art``: one
        ``key:style`` per robot concept that robot data never shows; ``unseen``: of the web-only objects, one a category at a time, with names of one
        word that no robot concept has; ``digits``, ``icons``, ``flags``, ``people``, ``shapes``: see ``GROUPS``.
    """
    rng = random.Random(seed)
    pool = [c for c in object_concepts() if all(has_picture(c.key, s) for s in STYLES)]
    by_category: dict[str, list[Concept]] = {}
    for concept in pool:
        by_category.setdefault(concept.category, []).append(concept)
    for group in by_category.values():
        rng.shuffle(group)
    chosen: list[Concept] = []
    used_words: set[str] = set()
    while len(chosen) < ROBOT_CONCEPTS:
        before = len(chosen)
        for group in by_category.values():
            while group and len(chosen) < ROBOT_CONCEPTS:
                concept = group.pop()
                words = concept.name.replace("-", " ").split()
                if len(words) <= 2 and concept.name.isascii() and not used_words & set(words):
                    used_words |= set(words)
                    chosen.append(concept)
                    break
        if len(chosen) == before:
            raise ValueError(f"only {before} concepts fit the rule; lower ROBOT_CONCEPTS")
    robot = {c.key for c in chosen}
    held_out = [f"{c.key}:{rng.choice(STYLES)}" for c in chosen]
    unseen: list[Concept] = []
    while len(unseen) < UNSEEN_CONCEPTS:
        for group in by_category.values():
            fresh = [c for c in group if c.name.isascii() and c.name.isalpha() and c.name not in used_words and c.key not in robot]
            if fresh and len(unseen) < UNSEEN_CONCEPTS:
                unseen.append(fresh[-1])
                group.remove(fresh[-1])
                used_words.add(fresh[-1].name)
    by_name = {c.name: c.key for c in concepts().values() if all(has_picture(c.key, s) for s in STYLES)}
    return {
        "robot": [c.key for c in chosen],
        "web_only": [c.key for c in pool if c.key not in robot],
        "held_out_art": held_out,
        "unseen": [c.key for c in unseen],
        **{name: [by_name[n] for n in names] for name, names in GROUPS.items()},
    }


if __name__ == "__main__":
    path = Path(__file__).parent / "splits.json"
    path.write_text(json.dumps(make_splits(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
