"""The schema that policies are checked by where nothing is compiled: written down, so that nothing has to be loaded."""

import json
from functools import lru_cache
from pathlib import Path

from qcc.dsl.policy.frozen import thaw
from qcc.dsl.policy.schema import Schema
from qcc.ir.plugins import plugins

WRITTEN = Path(__file__).with_name("schema.json")
"""Made by ``docs/generate.py``."""


@lru_cache
def known_schema() -> Schema:
    """What policies are held to; where plugins add to it, as it is when they are loaded.

    Raises:
        ModelError: a plugin is no good.
    """
    if plugins():
        return _live()
    return thaw(json.loads(WRITTEN.read_text(encoding="utf-8")), _live)


def _live() -> Schema:
    from qcc.compiler.plan.catalog import schema  # loads every pass and format

    return schema()
