"""How the checks of the start-up proof run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vla.models.decoders.checks import CHECKS, DRAFTS, Failed, Subject
from vla.models.decoders.proof import Check, Execution, Verdict, cached, one_line
from vla.models.decoders.tiny import default_config, tiny_fields
from vla.models.decoders.tiny_models import isolated


def prove_language(
    kind: str, config: Any, make: Callable[[Any], Any], state: Callable[[Any], Subject]
) -> Verdict:
    """The verdict about a family of language models, from the cache or from the checks.

    Args:
        kind: see ``Verdict``.
        config: a Hugging Face configuration, or a model type with its default fields.
        make: a configuration to a tiny decoder.
        state: see ``prove``.
    """
    family = config if isinstance(config, str) else config.model_type
    try:
        config = default_config(family) if isinstance(config, str) else config
        about = {"class": type(config).__name__, "fields": tiny_fields(config)}
    except Exception as error:  # any error of a foreign configuration class is a refusal
        return Verdict(kind, family, (Check("tiny configuration", False, one_line(error)),))
    return cached(kind, family, about, lambda: prove(kind, family, lambda: make(config), state))


def prove(
    kind: str, family: str, make: Callable[[], Any], state: Callable[[Any], Subject]
) -> Verdict:
    """The verdict on a tiny decoder: texts run together, else separately, else it is refused.

    Args:
        kind: see ``Verdict``.
        family: see ``Verdict``.
        make: makes the decoder.
        state: what the kind states about the decoder with its present execution.
    """
    with isolated():
        try:
            decoder = make().eval()
        except Exception as error:  # the code of a family may raise anything
            return Verdict(kind, family, (Check("tiny model", False, _reason(error)),))
        executions: tuple[Execution, ...] = ("packed", "separate")
        for execution in executions:
            decoder.execution = execution
            checks, drafts = _run(state(decoder))
            verdict = Verdict(kind, family, checks, execution, drafts and decoder.takes_drafts)
            if verdict.right:
                break
        return verdict


def _run(subject: Subject) -> tuple[tuple[Check, ...], bool]:
    """The checks in order, up to the first that fails; False if drafts do not work.

    A decoder without speculative decoding is right.
    """
    done: list[Check] = []
    drafts = True
    common = ((name, lambda check=check: check(subject)) for name, check in CHECKS.items())
    for name, check in (*subject.extra, *common):
        try:
            done.append(Check(name, True, check()))
        except Exception as error:  # the code of a family may raise anything
            if name != DRAFTS:
                return (*done, Check(name, False, _reason(error))), drafts
            drafts = False
            done.append(Check(name, True, f"no drafts: {_reason(error)}"))
    return tuple(done), drafts


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Failed) else one_line(error)
