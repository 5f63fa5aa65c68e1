"""The files of a tokenizer, and which tokens begin and end a text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcc.ir.errors import ModelError

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
ALSO = ("special_tokens_map.json", "vocab.json", "merges.txt", "added_tokens.json", "chat_template.jinja")
MODEL, GENERATION = "config.json", "generation_config.json"
"""What exporters leave beside a tokenizer of the model and of how it generates."""
PLAIN = "PreTrainedTokenizerFast"


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer.

    Args:
        files: that are copied, with their names there.
        settings: what `tokenizer_config.json` says.
        model: what `config.json` says, where there is one.
        generation: what `generation_config.json` says, where there is one.
        ids: numbers of tokens, by their texts.
    """

    files: Mapping[str, Path]
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    generation: Mapping[str, Any]
    ids: Mapping[str, int]

    def number(self, kind: str) -> list[int]:
        """The numbers of the tokens of a kind: ``bos``, ``eos`` or ``pad``; none where nothing tells."""
        for told in (self.generation, self.model):
            found = told.get(f"{kind}_token_id")
            if found is not None:
                numbers = [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, int)]
                if not numbers:
                    raise _wrong(f"`{kind}_token_id` is {found!r:.40}, and no number of a token")
                return numbers
        token = self.settings.get(f"{kind}_token")
        text = token.get("content") if isinstance(token, dict) else token
        return [self.ids[text]] if isinstance(text, str) and text in self.ids else []


def tokenizer_files(path: Path, eos: str = "") -> TokenizerFiles:
    """The files of a tokenizer.

    Args:
        path: of a folder, or of its `tokenizer.json` alone.
        eos: the text of the token that ends a text, where nothing else tells.

    Raises:
        ModelError: there is none.
    """
    folder, main = (path, path / TOKENIZER) if path.is_dir() else (path.parent, path)
    data = _read(main)
    if data is None or not isinstance(data.get("model"), dict):
        help = "name the folder of a tokenizer, or its `tokenizer.json`"
        raise ModelError("Q775", f"`{main}` is no tokenizer as the library `tokenizers` writes it", help=help)
    named = path.is_dir()
    names = [name for name in (SETTINGS, *ALSO) if named and (folder / name).is_file()]
    settings, model, generation = (
        _read(folder / name) or {} if named else {} for name in (SETTINGS, MODEL, GENERATION)
    )
    ids = _ids(data)
    if eos:
        if eos not in ids:
            raise ModelError("Q775", f"the tokenizer has no token `{eos}`", help="name one of its special tokens")
        settings, generation = settings | {"eos_token": eos}, {}
        model = {name: value for name, value in model.items() if name != "eos_token_id"}
    files = {TOKENIZER: main} | {name: folder / name for name in names}
    return TokenizerFiles(files, {"tokenizer_class": PLAIN} | settings, model, generation, ids)


def _wrong(what: str) -> ModelError:
    return ModelError("Q775", f"the tokenizer's files are not as exporters write them: {what}", help="export it again")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _ids(data: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of all tokens that are whole texts."""
    vocabulary = data["model"].get("vocab")
    found = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    added = data.get("added_tokens")
    for one in added if isinstance(added, list) else ():
        if not isinstance(one, dict) or not isinstance(one.get("content"), str) or not isinstance(one.get("id"), int):
            raise _wrong(f"`added_tokens` holds {one!r:.40}")
        found[one["content"]] = one["id"]
    return found
