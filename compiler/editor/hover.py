"""What stands at a place, explained: its manual page, or what it was defined as."""

from qcc.compiler.editor.context import CursorPlace, place_at, word_span
from qcc.compiler.editor.document import Document
from qcc.compiler.editor.manual import ManualEntry, entries
from qcc.compiler.editor.names import definition
from qcc.dsl.load import preset_names, preset_source
from qcc.dsl.policy.options import Option, options_of
from qcc.dsl.policy.schema import Schema


def explained(document: Document, offset: int, schema: Schema) -> str | None:
    """Text about what stands at a place, if it's known."""
    start, end = word_span(document.text, offset)
    word = document.text[start:end]
    place = place_at(document.text, start)
    home = definition(document, offset, schema)
    if home is not None:
        if home.source.preset or home.end == 0:
            return home.source.text
        return f"{home.source.line(home.line).strip()}\n\n{home.location}"
    if place is None:
        return preset_source(word).text if word in preset_names() else None
    option = _option(place, word, schema)
    if option is not None:
        default = (
            "" if option.required else f" ({'optional' if option.default is None else f'default {option.default}'})"
        )
        return f"{option.name}: {option.expected.replace('`', '')}{default}\n\n{option.summary}".rstrip()
    found = _entry(place, word)
    return None if found is None else found.page()


def _entry(place: CursorPlace, word: str) -> ManualEntry | None:
    """The page of a word: where several have it, the one of the place."""
    bare = word.rstrip("0123456789")
    named = [one for one in entries() if one.value in (word, bare) or one.name == word]
    wanted = {
        "rule": "properties of a rule" if not place.setting else f"values of `{place.setting}`",
        "budget": "bounds of `budget`",
        "verify": "bounds of `verify`",
        "target": "targets",
        "": "blocks",
    }
    section = wanted.get(place.statement, "")
    first = [one for one in named if one.section == section]
    formats = [one for one in named if one.section == "formats" and place.statement == "rule" and place.setting]
    return next(iter([*first, *formats]), None)


def _option(place: CursorPlace, word: str, schema: Schema) -> Option | None:
    """The option that a word is the name of."""
    if place.option or place.before:
        return None
    if place.statement == "export" and not place.setting and schema.export is not None:
        return options_of(schema.export).get(word)
    if not place.owners or place.setting not in schema.properties:
        return None
    known = schema.properties[place.setting]
    method = known.methods.get(place.owners[-1])
    if method is None:
        family = (known.formats or schema.formats).get(place.owners[-1])
        method = None if family is None else family.arguments
    return None if method is None else options_of(method).get(word)
