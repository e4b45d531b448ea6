"""``init_from``: a new policy that starts from the weights of a saved one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vla.config import registered
from vla.errors import DataError
from vla.models.heads.token import TokenHead
from vla.models.lora import plain_name
from vla.policies.base_weights import whole_weights
from vla.policies.checkpoint import read_robot_specs
from vla.policies.folder import find_policy
from vla.policies.spec import RobotSpec
from vla.policies.untrusted import read_saved_config
from vla.policies.weights import Weights

_OF_ROBOTS = ("heads.", "views_VTD.", "states.")  # every robot has its own
_ACTION_TOKENS = "decoder.trainable_embeddings."  # embeddings of action tokens beside adapters


def start_from(policy: Any, directory: str | Path) -> list[str]:
    """Copy the weights of a saved policy that fit into a new policy.

    The vision encoder, connector and decoder must fit. A decoder with more tokens keeps the
    initial embeddings of the new ones. The action head, state encoder and camera embeddings of a
    robot are copied where their kind and all their shapes fit. They come from the robot of the
    same name, or from the only robot if both policies have one.

    Returns:
        What is kept and what is not, with the reason, one line each.

    Raises:
        DataError: there is no saved policy, or the vision encoders, connectors or decoders differ.
    """
    directory = find_policy(directory)
    saved, weights = whole_weights(directory), Weights()
    shared, lines = _shared_weights(policy, saved, directory)
    for robot in policy.specs if hasattr(policy, "heads") else ():
        for part, found, reason in _SavedRobots(saved, directory).parts(policy, robot):
            name = part if len(policy.specs) == 1 else f"{part} of robot {robot}"
            lines.append(f"not kept: {name}: {reason}" if reason else f"kept: {name}")
            weights |= found
    policy.load_state_dict(shared | weights, strict=False)
    embeddings = getattr(getattr(policy, "decoder", None), "trainable_embeddings", None)
    if embeddings is not None and not any(name.startswith(_ACTION_TOKENS) for name in shared):
        embeddings.copy_from(policy.decoder.lm)
    return [f"init_from {directory}: {line}" for line in lines]


def with_saved_token_ids(config: dict[str, Any], directory: str | Path) -> dict[str, Any]:
    """The section ``policy:`` with the ids of action tokens that a saved policy has overwritten.

    The ids depend on the words of the data, and the saved decoder knows the actions by its own.

    Raises:
        DataError: there is no saved policy.
    """
    head = config.get("head") or {}
    saved = read_saved_config(find_policy(directory) / "policy.yaml").get("head") or {}
    alike = all(head.get(k) == saved.get(k) for k in ("name", "codec", "token_assignment"))
    if not alike or head.get("ids") or not saved.get("ids"):
        return config
    return config | {"head": {**head, "ids": saved["ids"]}}


def _shared_weights(policy: Any, saved: Weights, directory: Path) -> tuple[Weights, list[str]]:
    """Weights of the parts that all robots share, by their names in the new policy, and notes.

    Raises:
        DataError: a weight does not fit.
    """
    state, new_tokens = policy.state_dict(), 0
    renamed = {plain_name(n): n for n in state}  # LoRA puts weights one level deeper
    vocabulary, found = _vocabulary_weights(policy), Weights()
    for saved_name, old in saved.items():
        if saved_name.startswith(_OF_ROBOTS):
            continue
        name = saved_name if saved_name in state else renamed.get(saved_name, saved_name)
        new = state.get(name)
        if new is not None and new.shape == old.shape:
            found[name] = old
        elif new is not None and name in vocabulary and _has_more_rows(new, old):
            new_tokens = len(new) - len(old)
            found[name] = _with_rows_of(new, old)
        elif not name.startswith(_ACTION_TOKENS):  # these belong to the head
            raise DataError(
                f"{directory}: {name} does not fit this policy; init_from needs the same vision, "
                "connector and decoder"
            )
    lines = [f"kept: {', '.join(sorted({name.split('.')[0] for name in found}))}"]
    if new_tokens:
        lines.append(f"not kept: embeddings of {new_tokens} tokens: the saved policy has no such")
    return found, lines


def _vocabulary_weights(policy: Any) -> set[str]:
    """Names of the weights with one row per token."""
    lm = getattr(getattr(policy, "decoder", None), "lm", None)
    if lm is None:
        return set()
    layers = [lm.get_input_embeddings(), lm.get_output_embeddings()]
    known = {t.data_ptr() for layer in layers if layer is not None for t in layer.parameters()}
    return {n for n, t in policy.state_dict().items() if t.data_ptr() in known}


def _has_more_rows(new: torch.Tensor, old: torch.Tensor) -> bool:
    return new.shape[1:] == old.shape[1:] and len(new) > len(old)


def _with_rows_of(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """``new`` with its first rows replaced by ``old``."""
    return torch.cat([old.to(new), new[len(old) :]])


class _SavedRobots:
    """The parts of a saved policy that every robot has of its own."""

    def __init__(self, weights: Weights, directory: Path) -> None:
        self.weights = weights
        self.specs = dict(sorted(read_robot_specs(directory).items()))
        self.head: Mapping[str, Any] = (
            read_saved_config(directory / "policy.yaml").get("head") or {}
        )

    def parts(self, policy: Any, robot: str) -> Iterator[tuple[str, Weights, str]]:
        """(part, its weights by their new names, why it is not kept) for one robot."""
        alone = len(self.specs) == len(policy.specs) == 1
        source, new = next(iter(self.specs)) if alone else robot, list(policy.specs).index(robot)
        if source not in self.specs:
            have = ", ".join(self.specs)
            yield "action head", {}, f"the saved policy has no robot {robot}, only {have}"
            return
        old, spec, saved = list(self.specs).index(source), policy.specs[robot], self.specs[source]
        same_views = (saved.cameras, saved.history) == (spec.cameras, spec.history)
        views = "" if same_views else "the cameras or the frames of history differ"
        for part, of_old, of_new, reason in (
            ("action head", *self._head(policy.heads[new], old, new, saved, spec)),
            ("state encoder", f"states.{old}", f"states.{new}", ""),
            ("camera embeddings", f"views_VTD.{old}", f"views_VTD.{new}", views),
        ):
            if part == "action head" or any(_is_under(n, of_new) for n in policy.state_dict()):
                found, misfit = ({}, reason) if reason else self._fitting(policy, of_old, of_new)
                yield part, found, misfit

    def _head(
        self, head: nn.Module, old: int, new: int, saved_spec: RobotSpec, spec: RobotSpec
    ) -> tuple[str, str, str]:
        """Prefixes of the saved and the new weights, and why the head is of another kind.

        The head of the action after a plan is of the same kind as that head without a plan.
        """
        saved, of_old, of_new = self.head, f"heads.{old}", f"heads.{new}"
        if isinstance(saved.get("action"), dict):
            saved, of_old = saved["action"], f"{of_old}.action"
        if isinstance(inner := getattr(head, "action", None), nn.Module):
            head, of_new = inner, f"{of_new}.action"
        names = {cls: name for name, cls in registered("head").items()}
        before, now = str(saved.get("name")), names.get(type(head), type(head).__name__)
        if before != now:
            return of_old, of_new, f"it was {before}, it is {now} here"
        if not isinstance(head, TokenHead):
            return of_old, of_new, ""
        sizes = [(s.horizon, s.action_space.dim) for s in (saved_spec, spec)]
        reason = head.difference_to(saved)
        if not reason and head.codec.length is None and sizes[0] != sizes[1]:
            reason = f"the codec is of chunks of {sizes[0]}, here of {sizes[1]} (steps, dimensions)"
        return of_old, of_new, reason

    def _fitting(self, policy: Any, of_old: str, of_new: str) -> tuple[Weights, str]:
        """The saved weights by their new names, or why they do not fit."""
        parameters, found = dict(policy.named_parameters()), Weights()
        for name, now in policy.state_dict().items():
            if not _is_under(name, of_new):
                continue
            short = name.removeprefix(of_new)
            before = self.weights.get(of_old + short)
            # The byte-pair encoding of FAST has any length.
            if before is not None and (before.shape == now.shape or short.endswith(".codec.bpe")):
                found[name] = before
            elif name not in parameters:
                if before is not None and _has_more_rows(now, before):  # known tokens
                    found[name] = _with_rows_of(now, before)
            else:
                was = "missing" if before is None else tuple(before.shape)
                return {}, f"{short.lstrip('.') or 'shape'} was {was}, is {tuple(now.shape)} here"
        return found, ""


def _is_under(name: str, prefix: str) -> bool:
    return f"{name}.".startswith(f"{prefix}.")
