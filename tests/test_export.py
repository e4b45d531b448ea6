"""Exported policies act as the saved ones, without torch; what cannot be exported is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call, here, line
from conftest import TINY_POLICY
from families import SEPARATE, decoder_config
from policies import build_policy, make_policy, robot_batch, spec
from rt1_policy import make_rt1

from vla.errors import ConfigError, DataError
from vla.evaluation.export import run_export
from vla.inference.export_graphs import PrefixGraph
from vla.inference.export_onnx import trace
from vla.inference.exportable import check_exportable
from vla.inference.exported import load_exported
from vla.inference.exported_bound import open_policy
from vla.policies.checkpoint import load_policy, save_policy

__all__ = ["here", "line"]
pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter
_ALONE = """
import json, sys
import numpy as np
from vla.inference.exported import load_exported
arrays = np.load(sys.argv[2], allow_pickle=False)
policy = load_exported(sys.argv[1], threads=1)
images = [{name: arrays[name][n] for name in ("top", "wrist")} for n in range(3)]
texts = ["pick the banana", "pick up the red apple", "pick the banana"]
actions = policy.act(images, texts, arrays["state"])
one = policy.act(images[0], texts[0], arrays["state"][0])
assert "torch" not in sys.modules and "transformers" not in sys.modules
json.dump([actions.tolist(), one.tolist()], sys.stdout)
"""


def saved(folder: Path, seed: int = 1, **parts: Any) -> Path:
    """A saved policy with random weights; two cameras and a state."""
    config = TINY_POLICY | {"state": True} | parts
    one = replace(spec(2, ("top", "wrist")), state_dim=2)
    one.statistics["state"] = {
        k: [v] * 2 for k, v in {"mean": 0.0, "std": 1.0, "q01": -1.0, "q99": 1.0}.items()
    } | {"min": [-2.0] * 2, "max": [2.0] * 2}
    policy = build_policy(config, specs={"robot": one})
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return save_policy(policy, {"name": "vla", **config}, folder)


@pytest.mark.slow
def test_a_token_policy_with_plans_acts_alike_in_a_process_without_torch(tmp_path: Path) -> None:
    head = {"name": "token", "plan": True, "plan_tokens": 4, "plan_switch_margin": 1.0}
    cross = {"name": "cross_attention", "heads": 2}
    saved(tmp_path / "p", head=head, connector=cross)
    report = run_export(tmp_path / "p", tmp_path / "out", observations=8)
    agreement = report["agreement"]["robot"]
    assert agreement["identical"] == 1 and agreement["observations"] == 8
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "robot_spec.json", "decoding.json", "normalisation.json"} <= files
    assert {f"{n}.onnx" for n in ("vision", "text", "logits", "legal")} <= files
    assert not [f for f in files if f.endswith((".pkl", ".pt", ".tmp"))]
    about = json.loads((tmp_path / "out" / "export.json").read_text())
    assert about["opset"] >= 18 and {"torch", "onnx", "onnxruntime"} <= about["versions"].keys()
    random = np.random.default_rng(0)
    arrays = {
        "top": random.integers(0, 256, (3, 32, 32, 3), np.uint8),
        "wrist": random.integers(0, 256, (3, 40, 50, 3), np.uint8),  # is resized
        "state": random.normal(size=(3, 2)).astype(np.float32),
    }
    np.savez(tmp_path / "observations.npz", **arrays)
    command = [sys.executable, "-c", _ALONE, tmp_path / "out", tmp_path / "observations.npz"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    actions, one = map(np.array, json.loads(ran.stdout))
    images = [{name: arrays[name][n] for name in ("top", "wrist")} for n in range(3)]
    texts = ["pick the banana", "pick up the red apple", "pick the banana"]
    policy = load_policy(tmp_path / "p", "cpu").robot()
    assert np.array_equal(policy.act(images, texts, arrays["state"]), actions.astype(np.float32))
    assert np.array_equal(actions[0], one)
    bound = open_policy(tmp_path / "out")  # as vla eval and vla serve use it
    plans = bound.predict(
        torch.from_numpy(np.stack([arrays["top"]] * 2, 1)).permute(0, 1, 4, 2, 3)[:, :, None],
        texts,
        state_BTP=torch.from_numpy(arrays["state"])[:, None],
        previous_plans=["apple 12"] * 3,
    )[1]
    assert bound.uses_previous_plan() and len(plans) == 3
    with pytest.raises(ValueError, match="expected a dict with top, wrist"):
        load_exported(tmp_path / "out").act({"top": arrays["top"][0]}, "pick", [0.0, 0.0])
    (tmp_path / "out" / "text.onnx").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"text\.onnx: missing or damaged"):
        load_exported(tmp_path / "out")


@pytest.mark.slow
def test_a_flow_policy_has_one_graph_with_its_start_as_an_input(
    tmp_path: Path, here: None, capfd: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path / "p", head={"name": "flow", "steps": 2, "layers": 1, "width": 32, "noise": 1.0})
    assert call("export", tmp_path / "p", tmp_path / "out", "--verify", "6", "--json") == 0
    found = json.loads(capfd.readouterr().out)["agreement"]["robot"]
    assert found["max_difference"] <= 1e-4 and found["observations"] == 6
    exported = load_exported(tmp_path / "out")
    assert exported.about["graphs"] == ["policy"]
    assert set(exported.decoder.inputs["policy"]) == {"images", "state", "ids", "start"}
    images = np.zeros((1, 2, 1, 3, 32, 32), np.uint8)
    state, start = np.zeros((1, 1, 2), np.float32), np.full((1, 2, 8), 0.3, np.float32)
    twice = [exported.predict(images, ["pick"], state, start_BHA=start)[0] for _ in range(2)]
    assert np.array_equal(*twice)
    other = exported.predict(images, ["pick"], state, start_BHA=-start)[0]
    assert not np.array_equal(twice[0], other)


@pytest.mark.slow
def test_graphs_take_any_number_of_rows_also_with_a_first_token_before_the_image() -> None:
    policy: Any = make_policy(connector={"name": "perceiver", "tokens": 4, "layers": 1, "heads": 2})
    policy.decoder.bos = 1  # as pretrained models have it
    graph, images = PrefixGraph(policy, "robot"), robot_batch(2).images_BVTCHW
    dynamic = {"images_BVTCHW": [0]}
    model = trace(graph, {"images_BVTCHW": images}, dynamic, ["images"], ["prefix"], "vision")
    assert not isinstance(model.graph.inputs[0].shape[0], int)
    assert graph(images)[0].shape[1] == 5


@pytest.mark.slow
def test_int8_weights_are_smaller_and_the_agreement_is_reported(tmp_path: Path) -> None:
    wide = TINY_POLICY["decoder"]["config"] | {"n_embd": 128, "n_layer": 1}
    decoder = TINY_POLICY["decoder"] | {"config": wide}
    head = {"name": "chain_of_thought", "plan_tokens": 3, "action": {"name": "mixture"}}
    saved(tmp_path / "p", head=head, decoder=decoder)
    reports = [
        run_export(tmp_path / "p", tmp_path / "out", "onnx", quantize, 4)
        for quantize in (None, "int8")  # the second one replaces the first one
    ]
    full, small = (r["bytes"]["weights.bin"] for r in reports)
    assert small < 0.75 * full
    assert reports[0]["agreement"]["robot"]["max_difference"] <= 1e-4
    assert 0 < reports[1]["agreement"]["robot"]["max_difference"] < 1


def test_what_has_no_graphs_is_refused_with_the_part_and_an_alternative(
    tmp_path: Path, line: Callable[..., str]
) -> None:
    def refusal(**parts: Any) -> str:
        policy = make_policy({"name": "regression"}, **parts)
        with pytest.raises(ConfigError) as refused:
            check_exportable(policy.robot())
        return str(refused.value)

    assert "the decoder t5 is no causal language model" in refusal(decoder=decoder_config("t5"))
    recurrent = {"name": "causal", "config": SEPARATE["lfm2"], "vocab_size": 800}
    assert "the decoder lfm2 takes no masks" in refusal(decoder=recurrent)
    unknown = make_policy({"name": "regression"})
    unknown.spec.image_size = (0, 0)
    with pytest.raises(ConfigError, match="the image size of the training data is unknown"):
        check_exportable(unknown.robot())
    with pytest.raises(ConfigError, match="RT1Policy is no VLAPolicy; serve the saved policy"):
        check_exportable(make_rt1().robot())
    custom: Any = make_policy({"name": "regression"})
    kind = type("OwnHead", (type(custom.heads[0]),), {"predict": lambda *_: None})
    custom.heads[0].__class__ = kind
    with pytest.raises(ConfigError, match="the head OwnHead has a prediction of its own"):
        check_exportable(custom.robot())
    vlm: Any = make_policy({"name": "regression"})
    vlm.decoder.is_vlm = True
    with pytest.raises(ConfigError, match="whole vision-language model"):
        check_exportable(vlm.robot())
    config = TINY_POLICY | {"decoder": decoder_config("t5"), "head": {"name": "regression"}}
    policy = make_policy(config["head"], decoder=config["decoder"])
    save_policy(policy, config, tmp_path / "p")
    text = line("export", tmp_path / "p", tmp_path / "out")
    assert "the decoder t5" in text and "vla serve" in text
    assert not (tmp_path / "out").exists()
    assert "saved policy has" in line("export", tmp_path, tmp_path / "out")
    assert "has no adapters" in line("merge", tmp_path / "p", tmp_path / "out")


def test_folders_that_are_no_exported_policies(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"export\.json: missing; an exported policy has"):
        load_exported(tmp_path)
    for name in ("decoding", "normalisation", "robot_spec", "tokenizer"):
        (tmp_path / f"{name}.json").write_text("{}")
    (tmp_path / "export.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="format 99, expected 1"):
        load_exported(tmp_path)
    (tmp_path / "export.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match=r"damaged .*robot.*export the policy again"):
        load_exported(tmp_path)
    (tmp_path / "export.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        load_exported(tmp_path)
