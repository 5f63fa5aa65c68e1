"""An adapter's file: its tensors by layer and kind, and what it and its settings say of their scale."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

import qcc.ir.adapters.kinds
from qcc.ir.adapters.delta import Delta, DeltaParts
from qcc.ir.checkpoint.tensors import TensorFile, read_tensors
from qcc.ir.discovery import classes
from qcc.ir.errors import ModelError, Refused

CONFIG = "adapter_config.json"
LARGEST_CONFIG = 1 << 22
ALPHA = ".alpha"
WRAPPERS = re.compile(
    r"\.(default|base_layer|parametrizations(?=\.weight\.))(?=\.|$)"
)  # how peft and torch wrap layers
NOTED = ("lora_alpha", "alpha", "ss_network_alpha")
OWN_RANK = ("lora_down", "lora.down")  # whoever writes so means a scale of one where nothing is said
FOREIGN = (
    (r"prompt|prefix", "prompts are fed to a model, and are no part of its weights"),
    (r"oft_", "of rotations those are read that kohya's scripts, LyCORIS and new versions of peft write"),
    (r"adapter|bottleneck|houlsby|pfeiffer", "layers with an activation between change no weight"),
    (r"gate|router|expert", "what depends on the input changes no weight"),
)
UNKNOWN = "no kind of adapter has tensors of such names"
AdapterKey = tuple[str, type[Delta]]
_Role = tuple[type[Delta], str]


@dataclass(frozen=True)
class AdapterSource:
    """An adapter as it is asked for.

    Args:
        path: of the file.
        name: of the file, as the policy has it.
        scale: what all that it changes is multiplied by.
        alpha: in place of what the file says.
        only: a pattern for the names in the file that are taken.
    """

    path: Path
    name: str
    scale: float = 1.0
    alpha: float | None = None
    only: str | None = None

    @property
    def files(self) -> tuple[tuple[str, Path], ...]:
        """What is read, by the names that are told: the file, and the settings beside it."""
        config = self.path.with_name(CONFIG)
        told = (str(Path(self.name).with_name(CONFIG)), config)
        return ((self.name, self.path), *([told] if config.is_file() else []))


@dataclass(frozen=True)
class AdapterTensors:
    """The tensors of an adapter.

    Args:
        source: what was asked for.
        file: of them.
        settings: that stand beside it.
        found: the names of tensors by role, by layer and kind.
        shared: those that all layers have in common, by kind.
        unread: tensors that no kind has.
    """

    source: AdapterSource
    file: TensorFile
    settings: Mapping[str, object]
    found: Mapping[AdapterKey, Mapping[str, str]]
    shared: Mapping[type[Delta], Mapping[str, str]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """The layers that it names, as it names them."""
        return tuple(dict.fromkeys(module for module, _ in self.found))

    def parts(self, key: AdapterKey) -> DeltaParts:
        """The tensors of a kind at a layer.

        Raises:
            Refused: some are missing.
        """
        module, kind = key
        names = {**self.shared.get(kind, {}), **self.found[key]}
        if not any(one <= set(names) for one in kind.needed):
            least = min(kind.needed, key=lambda one: len(one - set(names)))
            missing = sorted(kind.endings[role][0] for role in least - set(names))
            raise Refused(f"its {kind.label} has no {' and no '.join(f'`{one}`' for one in missing)}")
        arrays = {role: np.asarray(self.file[name], np.float64) for role, name in names.items()}
        wrong = next((names[role] for role, array in arrays.items() if not np.isfinite(array).all()), None)
        if wrong is not None:
            raise Refused(f"`{wrong}` has numbers that are not finite")
        own = any(name.rpartition(module)[2].lstrip(".").startswith(OWN_RANK) for name in names.values())
        return DeltaParts(arrays, partial(self._scaling, module, own), self.settings, self._own_alpha(module))

    def _scaling(self, module: str, own: bool, rank: int) -> float:
        """Alpha over rank."""
        alpha = self._alpha(module)
        if alpha is None and own:
            return 1.0
        if alpha is None:
            raise ModelError(
                "Q334",
                f"nothing says the scale of `{self.source.name}`: no `alpha` in it, nor in `{CONFIG}` beside it",
                f'copy `{CONFIG}` beside it, or write `adapter "{self.source.name}" {{ alpha = {2 * rank} }}`',
            )
        told = self.settings.get("r")
        if isinstance(told, int) and told != rank and not self.settings.get("rank_pattern"):
            message = f"`{CONFIG}` is of another adapter: its rank is {told}, that of `{self.source.name}` {rank}"
            raise ModelError("Q334", message, "put each adapter into a folder of its own, beside its settings")
        return alpha / (np.sqrt(rank) if self.settings.get("use_rslora") is True else max(rank, 1))

    def _alpha(self, module: str) -> float | None:
        if self.source.alpha is not None:
            return self.source.alpha
        if (own := self._own_alpha(module)) is not None:
            return own
        patterns = self.settings.get("alpha_pattern")
        for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
            if module == pattern or module.endswith(f".{pattern}"):
                return _number(value)
        told = (self.settings.get(name) for name in ("lora_alpha", "alpha"))
        noted = (self.file.notes.get(name) for name in NOTED)
        return next((alpha for one in (*told, *noted) if (alpha := _number(one)) is not None), None)

    def _own_alpha(self, module: str) -> float | None:
        name = f"{module}{ALPHA}"
        if name not in self.file:
            return None
        held = np.asarray(self.file[name], np.float64).reshape(-1)
        return float(held[0]) if held.size and np.isfinite(held[0]) else None


def read_adapter(source: AdapterSource) -> AdapterTensors:
    """The tensors of an adapter, sorted; what its settings say of kinds is not needed.

    Raises:
        ModelError: the file or its settings cannot be read.
    """
    file = read_tensors(source.path)
    found: dict[AdapterKey, dict[str, str]] = {}
    shared: dict[type[Delta], dict[str, str]] = {}
    unread, unclear = list[str](), list[tuple[str, str, tuple[_Role, ...]]]()
    for name in file:
        plain = WRAPPERS.sub("", name)
        text, roles = next((one for one in _endings() if plain.endswith(one[0])), ("", ()))
        module = plain.removesuffix(text)
        if len(roles) > 1:
            unclear.append((name, module, roles))
        for kind, role in roles if len(roles) == 1 else ():
            held = shared.setdefault(kind, {}) if role in kind.shared else found.setdefault((module, kind), {})
            held[role] = name
        if not roles and not plain.endswith(ALPHA):
            unread.append(name)
    for name, module, roles in unclear:
        kind, role = next((one for one in roles if (module, one[0]) in found), roles[-1])
        found.setdefault((module, kind), {})[role] = name
    return AdapterTensors(source, file, _settings(source.path), found, shared, tuple(unread))


def why_unread(name: str) -> str:
    """Why no kind of adapter has a tensor of this name."""
    return next((why for pattern, why in FOREIGN if re.search(pattern, name)), UNKNOWN)


@lru_cache
def _endings() -> tuple[tuple[str, tuple[_Role, ...]], ...]:
    """The endings of names, the longest first, with the roles that they may be; those that need more come first."""
    kinds: tuple[type[Delta], ...] = classes(qcc.ir.adapters.kinds, Delta)  # type: ignore[type-abstract]
    found: dict[str, list[_Role]] = {}
    for kind in sorted(kinds, key=lambda one: -min(map(len, one.needed))):
        for role, texts in kind.endings.items():
            for text in texts:
                found.setdefault(f".{text}", []).append((kind, role))
    return tuple((text, tuple(found[text])) for text in sorted(found, key=lambda one: -len(one)))


def _settings(path: Path) -> Mapping[str, object]:
    config = path.with_name(CONFIG)
    try:
        if not config.is_file() or config.stat().st_size > LARGEST_CONFIG:
            return {}
        read = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError("Q439", f"`{config}` is damaged: {error}", "fetch it again, or move it away") from error
    return read if isinstance(read, dict) else {}


def _number(value: object) -> float | None:
    try:
        found = float(str(value)) if not isinstance(value, bool) else None
    except ValueError:
        return None
    return found if found is not None and np.isfinite(found) else None
