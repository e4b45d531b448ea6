"""Questions about the blocks of Language-Table, as web data for co-training."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla.benchmarks.language_table.benchmark import LanguageTable
from vla.benchmarks.language_table.env import HEIGHT
from vla.config import register
from vla.data.images import encode_image
from vla.data.source import Source
from vla.models.prompts import ACTION_QUESTION
from vla.types import QA, WebSample

GROUP = 50  # layouts of one physics client; a new one costs as much as five layouts


VERBS = ("push", "move", "slide")
WAYS = ("to", "towards", "close to", "next to")


def questions(blocks: dict[str, str], rng: np.random.Generator) -> list[QA]:
    """Two questions for every block. blocks: name -> place as text."""
    found = [QA(f"where is the {name}?", place, "where") for name, place in blocks.items()]
    for name, place in blocks.items():
        other = str(rng.choice([b for b in blocks if b != name] or [name]))
        instruction = f"{rng.choice(VERBS)} the {name} {rng.choice(WAYS)} the {other}"
        question = ACTION_QUESTION.format(instruction=instruction)
        found.append(QA(question, f"{name} {place} {blocks[other]}", "plan"))
    return found


@register("source", "language_table_questions")
class LanguageTableQuestions(Source):
    """Images of drawn layouts, without actions; two questions per block.

    One asks for its place: "where is the red moon?" - "143 97". The other is an instruction with
    another block, and the plan that ``vla record language_table`` keeps for it: "what action should
    the robot take to push the red moon to the blue cube?" - "red moon 143 97 120 90".

    A layout costs 0.2 s of a CPU, a demonstration several seconds. Sample ``i`` depends on ``seed``
    and ``i`` alone.

    Raises:
        ConfigError: as ``LanguageTable``.
    """

    def __init__(
        self,
        samples: int,  # number of samples (images), at least 1
        seed: int = 0,  # seed of the data set, at least 0
        checkout: str = "",  # as of the benchmark: the folder; empty: LANGUAGE_TABLE
        height: int = HEIGHT,  # of the images, px, 36 to 720; their width is 16/9 of it
    ) -> None:
        self.table = LanguageTable(checkout, height)
        self.samples, self.seed = samples, seed
        self._env: Any = None
        self._next = -1  # number of the layout that the environment draws next

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> WebSample:
        start = index - index % GROUP
        if not start < self._next <= index:
            self._begin(start)
        while self._next <= index:
            blocks = self._env.draw_blocks()
            self._next += 1
        rng = np.random.default_rng([self.seed, index])
        return WebSample(f"{index:07d}", encode_image(self._env.render()), questions(blocks, rng))

    def _begin(self, start: int) -> None:
        """Make the physics client of a group anew: its state depends on what it did before."""
        if self._env is None:
            self._env = self.table.make_env(self.table.tasks()[0])
        drawn = np.random.SeedSequence([self.seed, start // GROUP]).generate_state(1)
        self._env.reset(seed=int(drawn[0]))
        self._next = start

    def describe(self) -> dict[str, Any]:
        """All options and the versions of the simulator."""
        return {
            "name": "language_table_questions",
            "samples": self.samples,
            "seed": self.seed,
            **self.table.facts(),
        }
