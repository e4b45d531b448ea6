"""Co-training with image-text data, and the evaluation of its answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import losses
from web_files import (
    NAMES,
    write_coco,
    write_json,
    write_llava,
    write_parquet,
    write_vqa,
    write_webdataset,
)

from vla.cli.evaluate import evaluate_offline
from vla.config import check
from vla.data.config import DataConfig
from vla.data.pack import pack_from
from vla.data.pipeline import BatchStream
from vla.errors import DataError
from vla.evaluation.vqa import answer_questions, scores_by_test
from vla.models.prompts import after_turns, question_prompt
from vla.policies.checkpoint import load_policy
from vla.training.config import RunConfig
from vla.training.run import train

FORMATS: dict[str, Callable[[Path], Path]] = {
    "webdataset": write_webdataset,
    "llava": write_llava,
    "vqa": write_vqa,
    "coco": write_coco,
    "parquet": write_parquet,
}


@pytest.fixture(scope="module")
def web_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Five packed data sets of 32 px images, one for each format."""
    root, folders = tmp_path_factory.mktemp("web"), {}
    for name, write in FORMATS.items():
        folders[name] = str(root / f"{name}_packed")
        options = ["source.mapping.size=32", "val_fraction=0.3"]
        pack_from(write(root / name), Path(folders[name]), options)
    return folders


def test_five_formats_and_a_robot_train_together_and_log_their_shares(
    web_sets: dict[str, str], tiny_run: dict[str, Any], tiny_data: dict[str, str], tmp_path: Path
) -> None:
    weights = {"robot": 0.5} | dict.fromkeys(web_sets, 0.1)
    data = {"datasets": {"robot": tiny_data["robot"], **web_sets}, "sampling_weights": weights}
    changes = {"steps": 8, "batch_size": 16, "log_every": 4, "val_every": 8, "web_questions": 6}
    run = tiny_run | {"data": data | {"shuffle": 20}, "train": tiny_run["train"] | changes}
    policy = train(check(run, RunConfig, ""), progress=False)
    folder = policy.parent
    shares = {name: float(losses(folder, f"mixture/{name}")[8]) for name in weights}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert all(abs(shares[n] - w) < 0.15 for n, w in weights.items()) and min(shares.values()) > 0
    for name in web_sets:
        assert float(losses(folder, f"train/loss/{name}")[8]) > 0
        assert 0 <= float(losses(folder, f"val/accuracy/{name}")[8]) <= 1
    assert losses(folder, "val/vqa_accuracy/vqa") and losses(folder, "val/rouge_l/coco")
    out = tmp_path / "answers"
    evaluate_offline(policy, Path(web_sets["vqa"]), split="val", out=out)
    found = json.loads((out / "offline.json").read_text())
    assert {"yes/no", "other", "all"} == set(found["summary"]) and len(found["answers"]) == 4
    assert {"accuracy", "vqa_accuracy", "anls"} <= set(found["summary"]["all"])


class KnownAnswers:
    """Answers by the prompt."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def answer(self, images: torch.Tensor, questions: list[str], **options: Any) -> list[str]:
        self.asked += questions
        return [self.answers.get(q, "?") for q in questions]


def test_an_answer_longer_than_the_table_of_positions_is_refused_before_training(
    tiny_run: dict[str, Any], tiny_data: dict[str, str], tmp_path: Path
) -> None:
    rows = json.loads((write_llava(tmp_path / "long") / "llava_instruct.json").read_text())
    rows[2]["conversations"][3]["value"] = "red " * 300  # the decoder has 256 positions
    write_json(tmp_path / "long/llava_instruct.json", rows)
    sets = {"robot": tiny_data["robot"]}
    for name, options in {"long": [], "cut": ["source.mapping.max_answer_words=8"]}.items():
        sets[name] = str(tmp_path / f"{name}_packed")
        pack_from(tmp_path / "long", Path(sets[name]), ["source.mapping.size=32", *options])
    run = tiny_run | {"output_dir": str(tmp_path / "run"), "train": {"steps": 1, "batch_size": 4}}

    def mixture(name: str) -> dict[str, Any]:
        datasets = {"robot": sets["robot"], name: sets[name]}
        return {"datasets": datasets, "sampling_weights": dict.fromkeys(datasets, 0.5)}

    with pytest.raises(DataError, match=r"datasets\.long=.*3\d\d tokens.* 255: .*max_answer_words"):
        train(check(run | {"data": mixture("long")}, RunConfig, ""), progress=False)
    assert train(check(run | {"data": mixture("cut")}, RunConfig, ""), progress=False).is_dir()


def test_vqa_accuracy_counts_the_people_who_agree(web_sets: dict[str, str]) -> None:
    policy = KnownAnswers({"What colour?": "Grey.", "Is it red?": "No"})
    answers = answer_questions(policy, web_sets["vqa"], progress=False)
    scores = scores_by_test(answers)
    # Two of ten people said grey; nobody's answer to the other question differs.
    assert scores["other"]["vqa_accuracy"] == pytest.approx(2 / 3)
    assert scores["yes/no"]["vqa_accuracy"] == 1.0
    assert scores["all"]["n"] == 4 and scores["yes/no"]["anls"] == 1.0


def test_captions_of_one_image_are_the_references_of_one_question(
    web_sets: dict[str, str],
) -> None:
    policy = KnownAnswers({"what does the image show?": "a red picture number 3"})
    answers = answer_questions(policy, web_sets["coco"], split="all", progress=False)
    assert len(answers) == len(NAMES) and all(len(a.references) == 5 for a in answers)
    scores = scores_by_test(answers)["caption"]
    assert scores["accuracy"] == pytest.approx(2 / 6) and 0.7 < scores["rouge_l"] < 1
    assert 0.3 < scores["bleu4"] < 1


def test_later_turns_are_asked_and_trained_with_the_earlier_ones(
    web_sets: dict[str, str],
) -> None:
    policy = KnownAnswers({})
    answer_questions(policy, web_sets["llava"], split="all", progress=False)
    assert "What colour is it? A: red Q: Are you sure?" in policy.asked
    prompt = question_prompt(after_turns("Are you sure?", [["What colour is it?", "red"]]))
    assert prompt == "Q: What colour is it? A: red Q: Are you sure? A:"
    config = DataConfig({"w": web_sets["llava"]}, {"w": 1.0}, shuffle=4)
    batch = next(iter(BatchStream(config, 8, True)))
    assert batch.web is not None
    by_question = dict(zip(batch.web.questions, batch.web.turns, strict=True))
    assert by_question["What colour is it?"] == []
    assert by_question["Are you sure?"][0][0] == "What colour is it?"


@pytest.mark.slow
def test_co_training_learns_to_answer_about_photographs(
    tiny_run: dict[str, Any], tiny_data: dict[str, str], tmp_path: Path
) -> None:
    """Crops of matplotlib's sample images, as LLaVA's conversations."""
    from matplotlib import cbook
    from PIL import Image

    folder = Path(cbook._get_data_path("sample_data"))
    files = {"a woman": "grace_hopper.jpg", "a painting": "Minduka_Present_Blue_Pack.png"}
    files["a plot"] = "logo2.png"
    rows, rng = [], np.random.default_rng(0)
    (tmp_path / "llava").mkdir()
    for answer, file in files.items():
        with Image.open(folder / file) as photo:
            picture = photo.convert("RGB").resize((120, 120))
        for n in range(20):
            left, top = rng.integers(0, 40, 2).tolist()
            name = f"{file}_{n}.png"
            picture.crop((left, top, left + 80, top + 80)).save(tmp_path / "llava" / name)
            asked = {"from": "human", "value": "<image>\nWhat is this?"}
            rows.append({"image": name, "conversations": [asked, {"from": "gpt", "value": answer}]})
    write_json(tmp_path / "llava" / "train.json", rows)
    web = tmp_path / "web"
    pack_from(tmp_path / "llava", web, ["source.mapping.size=32", "val_fraction=0.2"])
    data = {"datasets": {"robot": tiny_data["robot"], "photos": str(web)}}
    weights = {"robot": 0.5, "photos": 0.5}
    changes = {"steps": 500, "val_every": 500, "log_every": 50, "save_every": 500}
    run = tiny_run | {
        "data": data | {"sampling_weights": weights},
        "train": tiny_run["train"] | changes | {"batch_size": 16},
        "optim": tiny_run["optim"] | {"lr": 3e-3},
    }
    policy: Any = load_policy(train(check(run, RunConfig, ""), progress=False))
    answers = answer_questions(policy, web, progress=False)
    assert scores_by_test(answers)["all"]["accuracy"] > 0.7 and len(answers) == 12
