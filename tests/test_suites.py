"""Suites ask for what they say, keep it out of robot data, and their statistics are right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_evaluate import Still

from vla.data.manifest import DataError, load_manifest
from vla.data.pack import pack
from vla.data.pictures import decode_image
from vla.data.sources import TabletopSource, WebSource
from vla.evaluate import Result, evaluate
from vla.schema import ACTION_QUESTION, QA
from vla.sim.expert import expert_command
from vla.sim.layouts import to_action
from vla.sim.render import DARK_TABLES, LIGHT_TABLES, TRAIN_TABLES
from vla.sim.scene import SceneConfig
from vla.sim.suites import CELLS, SUITES
from vla.sim.tabletop import Tabletop
from vla.sim.tasks import PHRASES as ROBOT_PHRASES
from vla.suites import averages, mcnemar, read_results
from vla.vqa import ask, by_test, is_right
from vla.web.knowledge import concepts, splits
from vla.web.leaks import forbidden_words, leaks
from vla.web.questions import PHRASES, WebConfig, make_web_sample
from vla.web.refer import references

SCENE = SceneConfig(skills=("pick", "near"), cards=(0, 0), concepts=16)


def key(name: str) -> str:
    return next(c.key for c in concepts().values() if c.name == name)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_can_be_done_and_shows_what_it_says(cell: str) -> None:
    env = Tabletop(SCENE, size=32)
    wins = 0
    for seed in range(6):
        observation, _ = env.reset(seed=seed, options={"skill": cell})
        shown = [i.concept for i in env.world.items]
        meant = shown[env.task.target if env.task.skill == "pick" else env.task.other]
        rule = CELLS[cell]
        if rule.meant:
            assert any(meant in splits()[g] for g in rule.meant)
        if rule.tests and "name" not in rule.tests:
            others = [k for k in shown if k != meant]
            fitting = [r.text for r in references([meant, *others], 0) if r.test in rule.tests]
            assert any(f"the {t}" in observation["instruction"] for t in fitting)
            assert f"the {concepts()[meant].name} " not in f"{observation['instruction']} "
        assert env.look.table in rule.tables and (env.look.zoom != 1.0) == rule.off_camera
        assert not env.task.succeeded(env.world)
        done = False
        while not done:
            *_, ended, cut, info = env.step(to_action("rt2", expert_command(env.world, env.task)))
            done = ended or cut
        wins += info["success"]
        assert info["skill"] == cell
    assert wins >= 5


def test_looks_of_the_suites_are_not_those_of_training() -> None:
    assert not set(TRAIN_TABLES) & set(DARK_TABLES + LIGHT_TABLES)
    env = Tabletop(SCENE, size=64)
    moved = env.reset(seed=3, options={"skill": "environments_hard"})[0]["images"]["top"]
    assert moved.mean() < 200 < env.reset(seed=3, options={"skill": "seen"})[0]["images"]["top"].mean()


def test_references_fit_one_picture_alone() -> None:
    keys = [key(n) for n in ("duck", "melon", "one", "three")]
    said = {r.text: n for n in range(4) for r in references(keys, n)}
    assert said["fruit"] == 1 and said["bird"] == 0 and said["sum of one plus two"] == 3 and said["smallest number"] == 2
    assert said["honigmelone in german"] == 1 and "number" not in said
    flags = [key(f"flag of {c}") for c in ("japan", "south korea", "greece")]
    by_flag = [{r.text for r in references(flags, n)} for n in range(3)]
    assert "flag of the country with the capital tokyo" in by_flag[0] and not any("asia" in t for t in by_flag[0])
    assert "flag of a country in europe" in by_flag[2]
    odd = [key(n) for n in ("duck", "dove", "peacock", "melon")]
    assert "one that is not a bird" in {r.text for r in references(odd, 3)}
    shapes = [key(n) for n in ("red circle", "red square", "blue circle", "duck")]
    assert "shape of the same colour as the square" in {r.text for r in references(shapes, 0)}
    assert not {r.test for r in references(shapes[1:] + shapes[:1], 0)} & {
        "same_colour",
        "other_colour",
    }  # two circles: like which?
    assert "shape of another colour" in {r.text for r in references([shapes[2], *shapes[:2]], 0)}


def test_the_web_teaches_what_the_suites_ask() -> None:
    config = WebConfig(
        concepts=16, web_only=False, groups=("unseen", "digits", "icons", "flags", "people", "shapes"), find=3, size=32
    )
    tests, found = set(), []
    for index in range(150):
        qa = [q for q in make_web_sample(config, 0, index).qa if q.tests.startswith("find_")]
        tests |= {q.tests for q in qa}
        found += qa
    assert {f"find_{t}" for c in CELLS.values() for t in c.tests} <= tests
    assert all(q.question.startswith("find the ") and is_right(q.answer, q.answer) for q in found)
    varied = [make_web_sample(replace(config, phrases=True, any_background=True), 0, k) for k in range(60)]
    asked = [q.question for s in varied for q in s.qa if q.tests.startswith("find_")]
    starts = [p.split("{x}")[0] for p in PHRASES]
    assert {p for p in starts for q in asked if q.startswith(p)} == set(starts)  # every way of asking is there
    dark = [int(decode_image(s.image, "")[:2, :2].mean()) for s in varied]
    assert min(dark) < 60 < 220 < max(dark)
    with pytest.raises(ValueError, match=r"web\.groups: unknown group 'cars'"):
        WebConfig(groups=("cars",))


def test_the_web_may_ask_as_a_robot_is_asked_and_for_every_knowledge_alike() -> None:
    groups = ("unseen", "digits", "icons", "flags", "people", "shapes")
    plain = WebConfig(concepts=16, web_only=False, groups=groups, find=3, size=32, phrases=True, singles=0.1)
    asked = replace(plain, robot_words=0.7, by_knowledge=True, alike=0.5)

    def found(config: WebConfig) -> list[QA]:
        return [q for k in range(200) for q in make_web_sample(config, 0, k).qa if q.tests.startswith("find_")]

    before, behind = ACTION_QUESTION.split("{instruction}")
    orders = [q.question.removeprefix(before).removesuffix(behind) for q in found(asked) if q.question.startswith(before)]
    assert 0.4 < len(orders) / len(found(asked)) < 0.6  # 15 of the 21 ways are orders
    assert not any(q.question.startswith(before) for q in found(plain))
    starts = {p.split("{x}")[0] for p in PHRASES if p.endswith("{x}.") and not p.startswith("not")}
    assert all(o.startswith(tuple({*starts, "give me the "})) for o in orders)
    taught = {w for forms in ROBOT_PHRASES.values() for p in forms for w in [p.split(" the ")[0]]}
    assert not [o for o in orders if o.split(" the ")[0] in taught]  # none is a robot's instruction
    share = [sum(q.tests == "find_odd" for q in found(c)) / len(found(c)) for c in (plain, asked)]
    assert share[1] > 2 * share[0] > 0


def test_no_held_out_knowledge_in_robot_data(tmp_path: Path) -> None:
    manifest = pack(TabletopSource(SCENE, 60, size=16), tmp_path / "clean", 20, 0.0, False)
    assert leaks(manifest) == []
    manifest["words"]["fruit"], manifest["shown"][f"{key('rose')}:noto"] = 1, 2
    manifest["shown"][splits()["held_out_art"][0]] = 1
    lines = "\n".join(leaks(manifest))
    assert "word 'fruit': a kind of thing" in lines and "picture of 'rose'" in lines and "held-out art of 'rabbit'" in lines
    assert len(leaks(manifest)) == 3
    with pytest.raises(DataError, match="which pictures were shown"):
        leaks(load_manifest(tmp_path / "clean") | {"shown": {}})
    assert {"three", "honigmelone", "tokyo", "cook"} - set(forbidden_words()) == {"tokyo"}  # capitals are text facts about flags


def test_suites_are_evaluated_and_averaged_as_in_the_paper(tmp_path: Path) -> None:
    results, _ = evaluate(Still(), "vla/Tabletop-v0", {"size": 32, "scene": SCENE}, 1, SUITES["all"], progress=False)
    assert [r.skill for r in results] == SUITES["all"] and averages(results) == dict.fromkeys(
        ("seen", "generalisation", "emergent"), 0.0
    )
    for r in results:
        r.success = r.skill in ("symbol", "maths", "category")
    assert averages(results)["emergent"] == pytest.approx((1 + 2 / 6 + 0) / 3)
    assert "generalisation" not in averages([r for r in results if r.skill != "objects_easy"])


def test_pairs_are_compared_exactly(tmp_path: Path) -> None:
    def made(wins: set[int]) -> list[Result]:
        return [Result(s, "pick", "", s in wins, 5) for s in range(20)]

    m = mcnemar(made(set(range(12))), made({0, 1, 15}))
    assert (m["n"], m["only_ours"], m["only_theirs"]) == (20, 10, 1)
    assert m["p"] == pytest.approx(2 * (1 + 11) / 2**11)  # two-sided binomial tail, by hand
    assert mcnemar(made({1}), made({1}))["p"] == 1.0
    with pytest.raises(DataError, match="different episodes"):
        mcnemar(made({1}), made({1})[:5])
    (tmp_path / "r.json").write_text(json.dumps({"episodes": [{"seed": 1}]}))
    with pytest.raises(DataError, match="not the results of `vla eval`"):
        read_results(tmp_path / "r.json")


def test_answers_are_marked() -> None:
    assert is_right("drum", "Drum") and not is_right("drum", "duck")
    assert is_right("143 97", "130 110") and not is_right("143 97", "143 130") and not is_right("143 97", "drum")
    assert is_right("drum 143 97", "drum 150 90") and not is_right("drum 143 97", "duck 143 97")
    assert is_right("3", "3") and not is_right("3", "4")


class Parrot:
    """Knows where everything is, and nothing else."""

    def __init__(self, data: str) -> None:
        from vla.data.samples import read_json
        from vla.data.shards import untarred

        urls = iter([{"url": f"{data}/{s}"} for s in load_manifest(data)["splits"]["val"]])
        self.known: list[Any] = [
            q["answer"] if q["tests"] == "where" else "?"
            for s in untarred(Path(data), urls)
            for q in read_json(s)["qa"]
            if q["needs_image"]
        ]
        self.asked = 0

    def answer(self, images: torch.Tensor, questions: list[str]) -> list[str]:
        self.asked += len(questions)
        return self.known[self.asked - len(questions) : self.asked]


def test_questions_of_a_split_are_asked_and_counted(tiny_data: dict[str, str], tmp_path: Path) -> None:
    answers = ask(Parrot(tiny_data["web"]), tiny_data["web"], batch=7, progress=False)
    rows = by_test(answers)
    assert rows["where"]["right"] == 1.0 and rows["name"]["right"] == 0.0 and rows["all"]["n"] == len(answers)
    assert rows["all"]["right"] == pytest.approx(np.mean([a.test == "where" for a in answers]))
    assert len(ask(Parrot(tiny_data["web"]), tiny_data["web"], limit=5, progress=False)) == 5
    with pytest.raises(DataError, match="no web samples"):
        ask(None, tiny_data["robot"], progress=False)


def test_web_data_is_what_it_was_without_new_questions(tmp_path: Path) -> None:
    made = WebSource(WebConfig(concepts=8, web_only=False, size=32), 3)
    assert not any(q.tests.startswith("find") for n in range(3) for q in made[n].qa)
