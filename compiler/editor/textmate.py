"""What editors colour and offer without a server: a TextMate grammar and snippets, from the schema."""

import re
from collections.abc import Iterable
from typing import Any

from qcc.dsl.policy.options import options_of
from qcc.dsl.policy.schema import Schema
from qcc.dsl.policy.select import ANY, FACTS
from qcc.dsl.syntax.mistakes import STATEMENTS

SCOPE = "source.qpolicy"


def grammar(schema: Schema) -> dict[str, Any]:
    """The TextMate grammar of the language, with all words that policies may name."""
    formats = list(schema.formats.values())
    own = [family for one in schema.properties.values() for family in (one.formats or {}).values()]
    widths = [one.keyword for one in formats if one.bits and not one.spaced]
    heads = [one.keyword for one in (*formats, *own) if not one.bits or one.spaced]
    methods = [keyword for one in schema.properties.values() for keyword in one.methods]
    words = [word for one in formats for word in one.words]
    words += [str(word) for one in formats for known in one.words.values() for word in _choices(known.argument)]
    options = [
        name for one in schema.properties.values() for method in one.methods.values() for name in options_of(method)
    ]
    options += [name for one in formats if one.arguments is not None for name in options_of(one.arguments)]
    metrics = [*schema.budget, *schema.verify]
    known = {
        "keyword.control": STATEMENTS,
        "keyword.operator.word": ("and", "or", "not"),
        "storage.type": (ANY, *schema.kinds, *schema.subjects),
        "variable.language": FACTS,
        "support.type.property-name": (*schema.properties, *schema.depth, *options, *_export(schema), "keep"),
        "support.function": (*methods, *metrics, *schema.objectives),
        "support.type": (*heads, *schema.targets),
        "support.constant": words,
        "constant.language": ("true", "false"),
    }
    patterns: list[dict[str, Any]] = [
        {"name": "comment.line.number-sign", "match": "#.*$"},
        {"name": "string.quoted.double", "begin": '"', "end": '"|$', "patterns": [{"match": r"\\."}]},
        {"name": "string.regexp", "match": r"(?<=~)\s*/(?:[^/\\\n]|\\.)+/"},
        {"name": "variable.parameter", "match": r"\$[A-Za-z_]\w*"},
        {"name": "support.type", "match": rf"\b(?:{_either(widths)})(?:\d+\b|(?=\{{))"},
        {
            "name": "constant.numeric",
            "match": r"[+-]?\b\d[\d_]*(?:x\d+)*(?:\.\d+)?(?:e[+-]?\d+)?\s*(?:%|[A-Za-zµ]+\b)?",
        },
        {"name": "keyword.operator", "match": r"!?~|[<>=!]=|[<>=|]"},
    ]
    taken: set[str] = set()
    for name, listed in known.items():
        fresh = [word for word in dict.fromkeys(listed) if word not in taken]
        taken |= set(fresh)
        # a name may hold `-`, so that a word ends where neither a letter nor `-` follows
        patterns.append({"name": name, "match": rf"(?<![\w$-])(?:{_either(fresh)})(?![\w-])"})
    for one in patterns:
        one["name"] = f"{one['name']}.qpolicy"
    return {"name": "qpolicy", "scopeName": SCOPE, "fileTypes": ["qpolicy"], "patterns": patterns}


def snippets(schema: Schema) -> dict[str, Any]:
    """What is often written, with places to fill in."""
    rounding = ",".join(schema.properties["rounding"].methods)
    bodies = {
        "rule": (
            "A rule",
            ["rule ${1:linear} {", "    weights  = ${2:int4 group 32}", f"    rounding = ${{3|{rounding}|}}", "}"],
        ),
        "keep": ("Layers that stay", ['rule any[name ~ "*${1:name}*"] { keep }']),
        "let": ("A name for layers", ['let ${1:name} = any[name ~ "*${2:part}*"]']),
        "budget": ("What is bounded", ["budget { size <= ${1:25}% }", "minimize output_error"]),
        "verify": ("What must hold of the written file", ["verify { cosine >= ${1:0.99} }"]),
        "calibrate": ("Data", ['calibrate "${1:data.npz}" { samples = ${2:128}, seed = 0 }']),
        "policy": (
            "A whole policy",
            ["qpolicy 1", "", "rule linear, conv { weights = int{4,8} channel }", "budget { size <= 25% }"],
        ),
    }
    return {told: {"prefix": prefix, "body": body} for prefix, (told, body) in bodies.items()}


def _export(schema: Schema) -> Iterable[str]:
    return () if schema.export is None else options_of(schema.export)


def _choices(argument: object) -> tuple[str, ...]:
    return argument if isinstance(argument, tuple) else ()


def _either(words: Iterable[str]) -> str:
    """Longer words first, or a part of one would match."""
    return "|".join(sorted(map(re.escape, dict.fromkeys(words)), key=lambda word: (-len(word), word)))
