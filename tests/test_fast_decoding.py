"""The forms of a decoding pass give the same hidden states; weights in 8 bits are an option."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import pytest
import torch
from families import decoder_config
from policies import WORDS, make_policy

from vla.config import build
from vla.errors import ConfigError
from vla.evaluation.bench import measure
from vla.evaluation.bench_text import report
from vla.inference.engine import speed_up
from vla.models.decoders import fast_decoding
from vla.models.decoders.base import Prefix
from vla.models.decoders.fast_steps import CompiledLayers, TracedStep
from vla.models.decoders.legal import legal_set
from vla.models.decoders.static_cache import StaticDecoding
from vla.models.decoders.text import encode
from vla.models.decoders.tokenizer import train_tokenizer
from vla.models.prompts import robot_prompt

PROMPT = robot_prompt("pick up the red apple")
IMAGE = Prefix(torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(1)))


def make(family: str) -> Any:
    """A decoder with three layers."""
    torch.manual_seed(0)
    config = decoder_config(family)
    depth = "n_layer" if family == "gpt2" else "num_hidden_layers"
    config["config"] = config["config"] | {depth: 3}
    decoder = build("decoder", config, tokenizer=train_tokenizer(WORDS, 800)).eval()
    decoder.apply_finetuning([])
    decoder.lm.requires_grad_(False)
    return decoder


def states(static: StaticDecoding, step: Any) -> list[torch.Tensor]:
    """Hidden states of passes with several numbers of columns."""
    static.use(step)
    begun = static.prefill(IMAGE, PROMPT, [3, 4])
    assert begun is not None
    state, hidden = begun
    passes = [torch.tensor([ids]) for ids in ([5, 6, 7], [8], [9, 10], [11])]
    return [hidden, *(static.decode_step(state, ids) for ids in passes)]


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("form", ["traced", "compiled"])
def test_faster_forms_of_the_pass_change_no_bit(
    family: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = make(family)
    static = StaticDecoding(decoder, 64)
    expected = states(static, static.plain)
    step: Any = TracedStep(static.plain)
    if form == "compiled":
        monkeypatch.setattr(torch, "compile", lambda run, **options: run)
        step = CompiledLayers(static.plain, decoder.layers, static.cache)
    for _ in range(2):
        for found, right in zip(states(static, step), expected, strict=True):
            assert torch.equal(found, right)
    assert not any("forward" in vars(layer) for layer in decoder.layers)


@pytest.mark.slow
@torch.no_grad()
def test_all_layers_are_one_compiled_program(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    compile_: Any = torch.compile  # a backend without a C++ compiler has the same programs
    monkeypatch.setattr(torch, "compile", lambda run, **o: compile_(run, backend="eager", **o))
    decoder = make("llama")
    static = StaticDecoding(decoder, 64)
    expected = states(static, static.plain)
    counters.clear()
    found = states(static, CompiledLayers(static.plain, decoder.layers, static.cache))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    # One program for several columns, and one for a single column.
    assert counters["stats"]["unique_graphs"] <= 2


def test_the_traced_pass_is_used_without_a_compiler(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        static = fast_decoding.static_decoding(make("gpt2"), IMAGE, PROMPT, False)
    assert static is not None and static.form == "traced"
    assert caplog.messages[-1] == "gpt2: decoding pass: traced"


def test_long_compiling_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def compile_(step: Any, **options: Any) -> Any:
        def run(*args: Any) -> Any:
            time.sleep(0.1)
            return step(*args)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(fast_decoding, "_PATIENCE", 0.02)
    with caplog.at_level(logging.WARNING):
        fast_decoding.static_decoding(make("gpt2"), IMAGE, PROMPT, True)
    assert [m for m in caplog.messages if m.startswith("compiling the decoding pass takes")] == [
        "compiling the decoding pass takes more than 0 s: please wait"
    ]


@pytest.mark.slow
def test_int8_weights_are_measured_beside_those_in_full_precision() -> None:
    policy = make_policy(head={"name": "token"}).robot()
    found = measure(policy, 2, False, "int8")
    assert found["equal_tokens"]  # of the ways in full precision
    name = [name for name in found["ways"] if name.endswith("int8")]
    assert len(name) == 1 and 0 <= found["quantized"]["equal_tokens"] <= 1
    assert "int8 weights: " in report(found)
    assert not _quantized(policy.policy.decoder.lm)


def test_speed_up_quantizes_the_decoder_of_any_head() -> None:
    for head in ("token", "regression"):
        policy = make_policy(head={"name": head})
        output = policy.decoder.lm.get_output_embeddings().weight.clone()
        speed_up(policy.robot(), quantize="int8")
        assert _quantized(policy.decoder.lm)
        assert torch.equal(policy.decoder.lm.get_output_embeddings().weight, output)


def _quantized(lm: Any) -> list[str]:
    return [n for n, p in lm.named_parameters() if type(p).__name__ == "Int8Tensor"]


def test_int8_weights_need_torchao(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ConfigError, match=r"needs torchao: pip install 'vla\[quantize\]'"):
        speed_up(make_policy(head={"name": "token"}).robot(), quantize="int8")


def test_kept_token_ids_follow_the_tokenizer_and_the_set() -> None:
    tokenizer = train_tokenizer(WORDS, 800)
    before = encode(tokenizer, "pick <new>")
    tokenizer.add_tokens(["<new>"])
    assert encode(tokenizer, "pick <new>") != before
    ids = torch.tensor([5, 9])
    assert legal_set(ids) is legal_set(ids)
    assert legal_set(torch.tensor([5, 9])) is not legal_set(ids)
    assert legal_set(ids).only is None and legal_set(torch.tensor([7])).only == 7
