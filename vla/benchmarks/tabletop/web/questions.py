"""Web samples: composed images with questions about them, and questions without an image."""

from __future__ import annotations

from collections import Counter

import numpy as np

from vla.benchmarks.tabletop.web.composition import PlacedObject, compose_image
from vla.benchmarks.tabletop.web.concepts import (
    LANGUAGES,
    category_of,
    concepts,
    keywords,
    translated_name,
)
from vla.benchmarks.tabletop.web.config import WebConfig
from vla.benchmarks.tabletop.web.countries import countries
from vla.benchmarks.tabletop.web.references import references
from vla.data.images import encode_image
from vla.data.locations import location_text
from vla.models.prompts import ACTION_QUESTION
from vla.types import QA, WebSample

# Templates of find questions. None is an instruction of the robot data.
FIND_TEMPLATES = (
    "find the {x}.",
    "locate the {x}.",
    "point at the {x}.",
    "show me the {x}.",
    "look at the {x}.",
    "look for the {x}.",
    "touch the {x}.",
    "choose the {x}.",
    "take the {x}.",
    "go to the {x}.",
    "bring something to the {x}.",
    "put a coin beside the {x}.",
    "which one is the {x}?",
    "i would like the {x}.",
    "give me the {x}, please.",
    "what should one look at to see the {x}?",
    "what should a person do to get the {x}?",
    "what would you take to have the {x}?",
    "where would a child go to touch the {x}?",
    "carry the cup over to the {x}.",
    "not the others but the {x}.",
)
# The other templates that end with a full stop are commands, which fit into the robot prompt.
_NO_COMMANDS = ("i would like the {x}.", "not the others but the {x}.")


def _location(item: PlacedObject) -> str:
    return location_text(item.x, item.y)


def _scene_question(
    test: str,
    objects: list[PlacedObject],
    rng: np.random.Generator,
    item: PlacedObject | None = None,
) -> QA:
    """A question of the given type about an image, and about ``item`` or a random object."""
    item = item or objects[int(rng.integers(len(objects)))]
    name, place = item.concept.name, _location(item)
    if test == "where":
        return QA(f"where is the {name}?", place, test)
    if test == "what_at":
        return QA(f"what is at {place}?", name, test)
    if test == "kind":
        return QA(f"what kind of thing is at {place}?", category_of(item.concept), test)
    if test == "count":
        categories = Counter(category_of(o.concept) for o in objects)
        if rng.random() < 0.5:
            return QA("how many pictures are there?", str(len(objects)), test)
        category = sorted(categories)[int(rng.integers(len(categories)))]
        question = f"how many pictures show a kind of {category}?"
        return QA(question, str(categories[category]), test)
    if test == "list":
        names = ", ".join(o.concept.name for o in sorted(objects, key=lambda o: o.x))
        return QA("list everything from left to right.", names, test)
    return QA("what is this?", name, "name")


def _find_question(config: WebConfig, objects: list[PlacedObject], rng: np.random.Generator) -> QA:
    """A question that refers to one object by a property; the answer is its name and location."""
    keys = [o.concept.key for o in objects]
    by_type: dict[str, list[tuple[PlacedObject, str]]] = {}
    if config.balance_reference_types:
        targets = list(range(len(objects)))
    else:
        targets = [int(rng.integers(len(objects)))]
    for target in targets:
        for reference in references(keys, target):
            by_type.setdefault(reference.type, []).append((objects[target], reference.text))
    reference_type = sorted(by_type)[int(rng.integers(len(by_type)))]
    choices = by_type[reference_type]
    item, text = choices[int(rng.integers(len(choices)))]
    template = FIND_TEMPLATES[0]
    if config.varied_phrases:
        template = FIND_TEMPLATES[int(rng.integers(len(FIND_TEMPLATES)))]
    question = template.format(x=text)
    is_command = template.endswith(".") and template not in _NO_COMMANDS
    if config.robot_prompt_share and is_command and rng.random() < config.robot_prompt_share:
        question = ACTION_QUESTION.format(instruction=question[:-1])
    return QA(question, f"{item.concept.name} {_location(item)}", f"find_{reference_type}")


def _text_question(config: WebConfig, rng: np.random.Generator) -> QA:
    """A question that needs no image."""
    choice = rng.integers(4)
    if choice == 0:
        known = [c for c in countries() if c.capital and c.continent]
        country = known[int(rng.integers(len(known)))]
        if rng.random() < 0.5:
            question, answer = f"what is the capital of {country.name}?", country.capital
        else:
            question, answer = f"on which continent is {country.name}?", country.continent
        return QA(question, answer, "fact", False)
    concept = concepts()[str(rng.choice(config.concept_keys()))]
    if choice == 1:
        code = sorted(LANGUAGES)[int(rng.integers(len(LANGUAGES)))]
        question = f"what is {concept.name} in {LANGUAGES[code]}?"
        return QA(question, translated_name(concept, code), "fact", False)
    words = [w for w in keywords(concept) if w != concept.name]
    if choice == 2 and words:
        question = f"say a word that goes with {concept.name}."
        return QA(question, words[int(rng.integers(len(words)))], "fact", False)
    return QA(f"what kind of thing is {concept.name}?", category_of(concept), "fact", False)


def make_web_sample(config: WebConfig, seed: int, index: int) -> WebSample:
    """One sample; it depends on the arguments alone.

    Every object has a question by name and one by location. Without them a model trained from
    random weights locates objects but does not learn their names (measured: 12 % correct among
    twelve concepts after 32,000 images).
    """
    rng = np.random.default_rng([seed, index])
    while True:
        scene = compose_image(config, rng)
        if scene.objects:
            break
    by_location = "name" if len(scene.objects) == 1 else "what_at"
    qa = [
        _scene_question(test, scene.objects, rng, item)
        for item in scene.objects
        for test in ("where", by_location)
    ]
    if scene.gripper is not None:
        qa.append(QA("where is the robot?", location_text(*scene.gripper), "hand"))
    tests = ("kind", "count", "list", "what_at")
    qa += [
        _scene_question(tests[int(rng.integers(len(tests)))], scene.objects, rng) for _ in range(2)
    ]
    qa += [_text_question(config, rng) for _ in range(config.facts)]
    qa += [_find_question(config, scene.objects, rng) for _ in range(config.find_questions)]
    unique = {q.question: q for q in qa}
    return WebSample(f"{index:07d}", encode_image(scene.image), list(unique.values()))
