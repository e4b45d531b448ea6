"""Keys of ``policy.decoder.config``: each one has an effect, or an error names it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from policies import VISION_ENCODERS, WORDS, build_policy
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

from vla.config import build, load_config
from vla.errors import ConfigError
from vla.models.decoders.architecture import (
    architecture_from_dict,
    architecture_to_dict,
    check_fields,
)
from vla.models.decoders.tokenizer import train_tokenizer

UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "near name": (
        {"model_type": "gpt2", "n_layers": 3},
        "n_layers: gpt2 has no such field; did you mean 'n_layer'?",
    ),
    "name of another family": (
        {"model_type": "llama", "n_layer": 3},
        "n_layer: llama has no such field; did you mean 'num_hidden_layers'?",
    ),
    "far name": ({"model_type": "t5", "zzz": 3}, "zzz: t5 has no such field. Choices: "),
    "field of a part": (
        {"model_type": "gemma3", "num_hidden_layers": 2},
        "num_hidden_layers: gemma3 has this field inside a part; "
        "write decoder.config.text_config.num_hidden_layers",
    ),
    "in a part": (
        {"model_type": "gemma3", "text_config": {"num_hidden_layerz": 2}},
        "text_config.num_hidden_layerz: gemma3_text has no such field; "
        "did you mean 'num_hidden_layers'?",
    ),
    "in a part of a chosen type": (
        {"model_type": "llava", "text_config": {"model_type": "gpt2", "n_layers": 2}},
        "text_config.n_layers: gpt2 has no such field; did you mean 'n_layer'?",
    ),
    "in rotary parameters": (
        {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "facter": 2.0}},
        "rope_parameters.facter: no such parameter; did you mean 'factor'?",
    ),
    "in rotary parameters of one layer type": (
        {"model_type": "gemma3_text", "rope_parameters": {"full_attention": {"tetha": 1e4}}},
        "rope_parameters.full_attention.tetha: no such parameter",
    ),
    "two names of one field": (
        {"model_type": "gpt2", "n_layer": 3, "num_hidden_layers": 4},
        "num_hidden_layers=4: a second name of n_layer, which is 3; give one of them",
    ),
    "wrong type": ({"model_type": "gpt2", "n_layer": "3"}, "n_layer: Field 'n_layer' expected int"),
    "values that do not fit": (
        {"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4},
        "llama: .*hidden size .30. is not a multiple of the number of attention heads .4.",
    ),
    "unknown type": (
        {"model_type": "gpt3"},
        "model_type='gpt3': transformers knows no such architecture; did you mean 'gpt",
    ),
}


@pytest.mark.parametrize("fault", UNKNOWN)
def test_a_field_without_effect_is_refused_with_its_path(fault: str) -> None:
    config, message = UNKNOWN[fault]
    with pytest.raises(ValueError, match=r"^decoder\.config[.:] ?") as error:
        architecture_from_dict(config)
    text = str(error.value)
    assert message in text or re.search(message, text), text


def test_second_names_and_keywords_of_a_class_are_accepted_and_have_an_effect() -> None:
    gpt2 = architecture_from_dict({"model_type": "gpt2", "num_hidden_layers": 4}, vocab_size=77)
    assert (gpt2.n_layer, gpt2.vocab_size) == (4, 77)
    llama = architecture_from_dict({"model_type": "llama", "rope_theta": 500.0})
    assert llama.rope_parameters["rope_theta"] == 500.0
    gemma = {"model_type": "gemma3_text", "sliding_window_pattern": 2, "num_hidden_layers": 4}
    assert architecture_from_dict(gemma).layer_types == ["sliding_attention", "full_attention"] * 2


def test_the_vocabulary_of_the_run_reaches_the_language_part() -> None:
    config = {"model_type": "gemma3", "text_config": {"num_hidden_layers": 1}}
    text = architecture_from_dict(config, vocab_size=321).get_text_config()
    assert (text.vocab_size, text.num_hidden_layers) == (321, 1)


CAUSAL = [k for k, v in CONFIG_MAPPING.items() if v in AutoModelForCausalLM._model_mapping]


@pytest.mark.slow
@pytest.mark.parametrize("kind", CAUSAL)
def test_the_saved_configuration_of_every_causal_family_passes(kind: str) -> None:
    try:
        default = AutoConfig.for_model(kind)
    except Exception as error:  # huggingface_hub has no common base for its validation errors
        pytest.skip(f"transformers refuses the family's own default: {error}")
    model = type("Model", (), {"config": default})
    saved = architecture_to_dict(model)
    check_fields({k: v for k, v in saved.items() if k != "model_type"}, default, "decoder.config")


def test_an_override_of_a_run_with_a_misspelt_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("decoder: {name: causal, config: {model_type: gpt2, n_layer: 1, n_head: 2}}\n")
    tokenizer = train_tokenizer(WORDS, 800)
    for override, message in (
        ("decoder.config.n_layers=4", r"policy\.decoder\.config\.n_layers: gpt2 has no such"),
        ("decoder.config.model_type=llama", r"policy\.decoder\.config\.n_(head|layer): llama has"),
        ("decoder.config.num_hidden_layers=4", r"a second name of n_layer, which is 1"),
    ):
        value = load_config(path, [override])["decoder"]
        with pytest.raises(ConfigError, match=message):
            build("decoder", value, "policy.decoder", tokenizer=tokenizer)


def test_the_sentence_encoder_names_its_own_slot() -> None:
    value = {"name": "sentence", "config": {"model_type": "bert", "num_layer": 1}}
    with pytest.raises(ConfigError, match=r"^policy\.text\.config\.num_layer: bert has no such"):
        build("text", value, "policy.text", tokenizer=train_tokenizer(WORDS, 800))


def test_an_architecture_that_differs_from_the_loaded_weights_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 800}
    tokenizer = train_tokenizer(WORDS, 800)
    AutoModelForCausalLM.from_config(architecture_from_dict(config)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    value = {"name": "causal", "model": str(tmp_path), "config": config}
    assert build("decoder", value, tokenizer=tokenizer).width == 32
    value["config"] = config | {"n_layer": 4}
    with pytest.raises(ConfigError, match=r"n_layer=4: the weights of .* have 2; remove this"):
        build("decoder", value, "policy.decoder", tokenizer=tokenizer)
    value["config"] = config | {"n_layers": 2}
    with pytest.raises(ConfigError, match=r"n_layers: gpt2 has no such field"):
        build("decoder", value, "policy.decoder", tokenizer=tokenizer)


def test_a_policy_with_a_misspelt_field_names_the_option_of_the_run() -> None:
    decoder = {"name": "causal", "config": {"model_type": "gpt2", "n_embed": 32}}
    config = {
        "vision": VISION_ENCODERS[0],
        "connector": {"name": "mlp"},
        "decoder": decoder,
        "head": {"name": "token"},
    }
    with pytest.raises(ConfigError, match=r"config\.n_embed: gpt2 .* did you mean 'n_embd'"):
        build_policy(config)


def test_sizes_that_do_not_fit_each_other_are_named_with_the_path() -> None:
    config = {"model_type": "gpt2", "n_embd": 32, "n_head": 3, "n_layer": 1}
    options = {"name": "causal", "vocab_size": 800, "config": config}
    with pytest.raises(ConfigError, match=r"decoder\.config: .*embed_dim.* 32 .*3"):
        build("decoder", options, "policy.decoder", tokenizer=train_tokenizer(WORDS, 800))
