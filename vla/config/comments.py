"""Comments of options, read from the source code: they are the documentation of the options."""

from __future__ import annotations

import ast
import functools
import inspect
import io
import tokenize
from dataclasses import is_dataclass
from pathlib import Path

from vla.config.options import config_class, options


def option_comments(cls: type) -> dict[str, str]:
    """Option -> its comment: at the end of its line or on the lines directly above; "" if none.

    For a component these are the options of its configuration dataclass or constructor. An option
    that shares its line with another one has no comment.
    """
    owner = cls if is_dataclass(cls) else config_class(cls) or cls
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if base.__module__ != "builtins" and (source := inspect.getsourcefile(base)):
            found |= _in_class(source, base.__qualname__)
    return {name: found.get(name, "") for name in options(cls)}


def _in_class(source: str, qualname: str) -> dict[str, str]:
    tree, comments = _parsed(source)
    node: ast.AST | None = tree
    for name in qualname.split("."):
        body = getattr(node, "body", [])
        node = next((n for n in body if isinstance(n, ast.ClassDef) and n.name == name), None)
    spans = _spans(node) if isinstance(node, ast.ClassDef) else {}
    return {name: _comment(name, spans, comments) for name in spans}


def _spans(node: ast.ClassDef) -> dict[str, tuple[int, int]]:
    """Field or constructor parameter -> its first and last line."""
    spans = {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            spans[item.target.id] = (item.lineno, item.end_lineno or item.lineno)
        elif isinstance(item, ast.FunctionDef) and item.name == "__init__":
            arguments = item.args.args[1:]
            none: list[ast.expr | None] = [None] * (len(arguments) - len(item.args.defaults))
            for argument, default in zip(arguments, [*none, *item.args.defaults], strict=True):
                last = argument if default is None else default
                spans[argument.arg] = (argument.lineno, last.end_lineno or last.lineno)
            spans |= {"self": (item.lineno, item.args.args[0].lineno)}
    return spans


def _comment(
    name: str, spans: dict[str, tuple[int, int]], comments: dict[int, tuple[str, bool]]
) -> str:
    first, last = spans[name]
    if any(n != name and s[0] <= last and first <= s[1] for n, s in spans.items()):
        return ""
    lines: list[str] = []
    line = first - 1
    while line in comments and comments[line][1]:
        lines.insert(0, comments[line][0])
        line -= 1
    lines += [comments[n][0] for n in (first, last) if n in comments][-1:]
    return " ".join(lines)


@functools.cache
def _parsed(source: str) -> tuple[ast.Module, dict[int, tuple[str, bool]]]:
    """A file's tree, and line -> (comment, True if nothing else is on the line)."""
    text = Path(source).read_text(encoding="utf-8")
    comments = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            comments[token.start[0]] = (token.string.lstrip("#").strip(), alone)
    return ast.parse(text), comments
