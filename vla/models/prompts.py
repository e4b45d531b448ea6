"""The prompt format. No other module knows how instructions, questions, plans and answers look."""

from __future__ import annotations

from collections.abc import Sequence

QUESTION_WORD = "Q:"
ANSWER_WORD = "A:"  # every generated text follows this word
PROMPT = f"{QUESTION_WORD} {{question}} {ANSWER_WORD}"
ACTION_QUESTION = "what action should the robot take to {instruction}?"  # RT-2, section 3.2
ACTION_WORD = "Action:"  # separates a chain-of-thought plan from the action (RT-2, section 4.4)
# Words that the trained tokenizer must know as single tokens.
PROMPT_WORDS = ["Q:", "A:", "Action:", "what", "action", "should", "the", "robot", "take", "to"]


def question_prompt(question: str) -> str:
    """The prompt for a question about an image."""
    return PROMPT.format(question=question)


def after_turns(question: str, turns: Sequence[Sequence[str]]) -> str:
    """A question after the earlier (question, answer) pairs of its conversation."""
    before = [f"{earlier} {ANSWER_WORD} {answer} {QUESTION_WORD} " for earlier, answer in turns]
    return "".join(before) + question


def web_prompts(
    questions: Sequence[str], turns: Sequence[Sequence[Sequence[str]]] = ()
) -> list[str]:
    """The prompts of questions, each after its earlier turns; no turns: none has any."""
    before = turns or [[] for _ in questions]
    return [question_prompt(after_turns(q, t)) for q, t in zip(questions, before, strict=True)]


def robot_prompt(instruction: str) -> str:
    """The prompt for a robot instruction (RT-2, arXiv 2307.15818, section 3.2)."""
    return question_prompt(ACTION_QUESTION.format(instruction=instruction))


def plan_text(plan: str, plan_word: str = "") -> str:
    """The text between the prompt and the action: the plan and the word ``Action:``.

    An empty plan leaves the word ``Action:`` alone. ``plan_word`` stands before the plan.
    """
    return "".join(f" {word}" for word in (plan_word, plan, ACTION_WORD) if word)
