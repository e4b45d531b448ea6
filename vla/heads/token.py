"""RT-2's head: actions are text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import torch
from torch import nn

from vla.actions.grammar import ActionGrammar, ActionWriter
from vla.actions.vocabulary import ActionVocabulary, Assignment, VocabularyError
from vla.config import Slot, build, register
from vla.decoders.base import Decoder, Prefix
from vla.decoders.text import FreeText, TextLoss, continuation, robot_prompt, text_loss, write
from vla.heads.base import HeadLoss, Prediction
from vla.heads.holding import staying
from vla.heads.rivals import OwnWords, Rivals
from vla.schema import RobotBatch

ACTION_WORD = "Action:"


@register("head", "token")
class TokenHead(nn.Module):
    """Actions as a string of tokens after the prompt (arXiv 2307.15818, section 3.2).

    Args:
        codec: slot: chunks of actions to symbols and back (uniform or quantile bins, FAST). assign: which token ids mean the symbols,
        see ``ActionVocabulary``. plan: write the step's plan before the action (chain of thought, section 4.4): ``<plan> Action: 1 128 …``; the
        plan is decoded freely, the action from legal tokens only. plan_optional: rows without a plan go straight to "Action:" (robots with
        plans beside robots without); else they are an error. plan_word: what stands before a plan ("Plan:", or nothing). plan_tokens: at most so many. rivals: the words that compete
        with the right one in the loss: all of the vocabulary, or the robot's own (see ``OwnWords``). eos_ends_plan: an end of text is taken for the end of the
        plan (for web answers of the same form, which do not go on with an action). hold_plan: nats by which a plan must be likelier than that of the step before to replace it (0: always). ids: for ``overwrite``: which ids (written by saving; else they are counted).
    """

    def __init__(
        self, codec: Annotated[dict[str, Any], Slot("codec")] | None = None, assign: Assignment = "integers", plan: bool = False, plan_word: str = "",
        plan_tokens: int = 8, plan_optional: bool = False, rivals: Rivals = "all", eos_ends_plan: bool = False, hold_plan: float = 0.0,
        ids: list[int] | None = None, *, decoder: Any, action_dim: int, horizon: int, quantiles: torch.Tensor | None = None,
        chunks: torch.Tensor | None = None, words: Counter[str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.plan, self.plan_word, self.plan_tokens, self.plan_optional = plan, plan_word, plan_tokens, plan_optional
        self.ends, self.hold_plan = decoder.tokenizer.eos_token_id if eos_ends_plan else None, hold_plan
        self.codec = build(
            "codec",
            codec or {"name": "uniform"},
            "head.codec",
            action_dim=action_dim,
            horizon=horizon,
            quantiles=quantiles,
            chunks=chunks,
        )
        self.vocabulary = ActionVocabulary(decoder.tokenizer, self.codec.symbols, assign, words, ids)
        if self.codec.length is None and not self.vocabulary.single:
            raise VocabularyError(
                "head.assign=integers: this codec needs one token a symbol, the tokenizer splits numbers; choose extra"
            )
        decoder.fit_vocabulary()
        self.own_words = OwnWords(decoder) if rivals == "own" else None
        self.grammar = ActionGrammar(self.codec, self.vocabulary, decoder.tokenizer.eos_token_id)

    def portable(self) -> dict[str, Any]:
        """What loading must not have to work out again: which ids were overwritten."""
        return {"ids": self.vocabulary.single_ids.tolist()} if self.vocabulary.assign == "overwrite" else {}

    @property
    def new_rows(self) -> list[int]:
        """Ids whose embeddings must learn even in a frozen decoder."""
        return self.vocabulary.new_rows

    def loss(self, decoder: Decoder, prefix: Prefix, batch: RobotBatch, unit_KHA: torch.Tensor) -> HeadLoss:
        """Next-token loss of the action strings; steps past an episode's end are left out of the string."""
        symbols = self.codec.encode(unit_KHA, batch.mask_KH.sum(1).tolist())
        thoughts = self._thoughts(decoder, batch.plans)
        targets = [t + self.grammar.targets(s) for t, s in zip(thoughts, symbols, strict=True)]
        among_V = None if self.own_words is None else self.own_words(targets)
        out = text_loss(decoder, prefix, batch.owner_K, [robot_prompt(i) for i in batch.instructions], targets, among_V=among_V)
        # the action's share of every target string, behind its plan
        flags = [f for t, whole in zip(thoughts, targets, strict=True) for f in [False] * len(t) + [True] * (len(whole) - len(t))]
        action_M = torch.tensor(flags, device=out.loss_M.device)
        return HeadLoss(out.loss_M, out.text_M, self._guess(decoder, out, action_M, symbols, batch.mask_KH), out.right_M[action_M])

    @torch.no_grad()
    def _guess(
        self, decoder: Decoder, out: TextLoss, action_M: torch.Tensor, symbols: list[list[int]], mask_KH: torch.Tensor
    ) -> torch.Tensor | None:
        """Teacher-forced actions (K, H, A); None for codecs whose symbols are not one a number."""
        if self.codec.length is None:
            return None
        hidden, device = out.hidden_MD[action_M], out.hidden_MD.device
        if self.vocabulary.single:
            best = decoder.logits(hidden, self.vocabulary.single_ids.to(device)).argmax(-1)
        else:
            best = self._best_numbers(decoder, hidden, symbols)
        unit = torch.zeros((*mask_KH.shape, self.codec.action_dim), device=device)
        unit[mask_KH] = self.codec.value(best.reshape(-1, self.codec.action_dim)).to(unit)
        return unit

    def _best_numbers(self, decoder: Decoder, hidden: torch.Tensor, symbols: list[list[int]]) -> torch.Tensor:
        """The likeliest number of as many tokens as the true one, for every number in order (numbers of several tokens)."""
        legal = self.vocabulary.legal.to(hidden.device)
        column = {int(i): n for n, i in enumerate(legal.tolist())}
        score = decoder.logits(hidden, legal).float().log_softmax(-1)
        best, at = [], 0
        for row in symbols:
            for symbol in row:
                size = len(self.vocabulary.pieces[symbol])
                choices = [s for s, p in enumerate(self.vocabulary.pieces) if len(p) == size]
                table = torch.tensor([[column[i] for i in self.vocabulary.pieces[s]] for s in choices], device=hidden.device)
                total = score[at : at + size].gather(1, table.T).sum(0)
                best.append(choices[int(total.argmax())])
                at += size
            at += 1  # the end behind the last number
        return torch.tensor(best, device=hidden.device)

    def _thoughts(self, decoder: Decoder, plans: list[str]) -> list[list[int]]:
        """Token ids that stand before each action: nothing, or the plan and the word "Action:"."""
        if not self.plan:
            return [[] for _ in plans]
        if not self.plan_optional and not all(plans):
            raise ValueError(
                "head.plan=true needs a plan for every step; some of this data has none: set head.plan to false, or head.plan_optional to true"
            )
        return [self.thought(decoder.tokenizer, p) for p in plans]

    def thought(self, tokenizer: Any, plan: str) -> list[int]:
        """Token ids of a plan as it stands between prompt and action."""
        words = [self.plan_word, plan, ACTION_WORD]
        return list(continuation(tokenizer, "".join(f" {w}" for w in words if w)))

    def predict(self, decoder: Decoder, prefix: Prefix, instructions: list[str], before: Sequence[str] = ()) -> Prediction:
        """Greedy; the plan free, the action from legal tokens only. before: plans of the step before (empty texts: none), if they are to be held."""
        prompts = [robot_prompt(i) for i in instructions]
        writers = [_PlanThenAction(self, decoder.tokenizer) for _ in instructions]
        write(decoder, prefix, prompts, writers)
        written = partial(self.thought, decoder.tokenizer)
        rows = staying(decoder, prefix, prompts, before, [w.plan for w in writers], written, self.hold_plan)
        if rows:
            again = [_PlanThenAction(self, decoder.tokenizer, before[r]) for r in rows]
            write(decoder, prefix.take(rows), [prompts[r] for r in rows], again)
            for row, writer in zip(rows, again, strict=True):
                writers[row] = writer
        return Prediction(self.codec.decode([w.action.symbols for w in writers]), [w.plan for w in writers])

    def text(self, unit_HA: torch.Tensor) -> str:
        """The action string of one prediction."""
        return self.vocabulary.text(self.codec.encode(unit_HA[None], [len(unit_HA)])[0])


class _PlanThenAction:
    """One row: free text up to the word "Action:" (if plans are wanted; or ``plan``), then that word, then the action."""

    def __init__(self, head: TokenHead, tokenizer: Any, plan: str = "") -> None:
        self.action = ActionWriter(head.grammar)
        self.tokenizer, self.grammar = tokenizer, head.grammar
        self.forced: list[int] = []
        self.free: FreeText | None = None
        self.given = plan
        if plan:
            self.forced = head.thought(tokenizer, plan)
        elif head.plan:
            word = list(continuation(tokenizer, f" {ACTION_WORD}"))
            self.rest, self.free = word[1:], FreeText(word[0], head.plan_tokens, head.ends)
            self.word = word
            self.forced = list(continuation(tokenizer, f" {head.plan_word}")) if head.plan_word else []

    @property
    def done(self) -> bool:
        return self.action.done

    @property
    def plan(self) -> str:
        """What was written before the action."""
        return self.tokenizer.decode(self.free.tokens).strip() if self.free else self.given

    def allowed(self) -> torch.Tensor | None:
        if self.forced:
            return self.grammar.ids((self.forced[0],))
        return None if self.free and not self.free.done else self.action.allowed()

    def push(self, token: int) -> int:
        if self.forced:
            return self.forced.pop(0)
        if self.free and not self.free.done:
            token = self.free.push(token)
            if self.free.done:  # the rest of the stop word, or all of it when the plan was cut off
                self.forced = list(self.rest if token == self.free.stop else self.word)
            return token
        return self.action.push(token)
