"""The seeded rule behind the committed ``splits.json``: which concepts a robot may ever see."""

from __future__ import annotations

import json
import random
from pathlib import Path

from vla.web.knowledge import Concept, object_concepts
from vla.web.pictures import STYLES, has_picture

ROBOT_CONCEPTS = 80


def make_splits(seed: int = 0) -> dict[str, list[str]]:
    """Draw the split anew: round-robin over categories, no two robot names sharing a word, names of at most two words.

    Returns:
        ``robot``: 80 concept keys; ``web_only``: the other objects that exist in all styles; ``held_out_art``: one
        ``key:style`` per robot concept that robot data never shows.
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
    return {
        "robot": [c.key for c in chosen],
        "web_only": [c.key for c in pool if c.key not in robot],
        "held_out_art": [f"{c.key}:{rng.choice(STYLES)}" for c in chosen],
    }


if __name__ == "__main__":
    path = Path(__file__).parent / "splits.json"
    path.write_text(json.dumps(make_splits(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
