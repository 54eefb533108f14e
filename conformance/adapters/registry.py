"""The implementations that can be named with `--impl`, each imported only when it is asked for."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from conformance.adapters.base import DUMP, MUTANT, ONE_SHOT, PORT, Adapter, Hello, PortFault
from conformance.adapters.external.dump import DumpAdapter
from conformance.adapters.external.limits import Limits
from conformance.adapters.external.one_shot import OneShotAdapter
from conformance.adapters.external.process import ProcessAdapter


class AdapterUnavailable(Exception):
    """An implementation cannot be driven here; the message is one line with the cure."""


class BadOption(Exception):
    """An option has a value that does not exist; the message is one line with the values that do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """The class of an adapter, and what to do if its packages are missing.

    `sets_floors` says that its errors were reviewed and may widen the tolerances for everyone: it is an honest
    implementation, and not another arithmetic of one that sets floors already.
    """

    module: str
    factory: str
    cure: str
    sets_floors: bool = False


_TORCH = "pip install 'gemma4-conformance[reference]'"
_MLX = "pip install 'mlx[cpu]' on Linux, or mlx on a Mac"

ADAPTERS: Mapping[str, _Entry] = {
    "mlx_impl": _Entry(module="mlx_impl.adapter", factory="MlxImplAdapter", cure=_MLX, sets_floors=True),
    # The fast path must meet the floors of the others.
    "mlx_impl_fused": _Entry(module="mlx_impl.fused", factory="MlxImplFusedAdapter", cure=_MLX, sets_floors=False),
    "mlx_lm": _Entry(
        module="mlx_lm.adapter",
        factory="MlxLmAdapter",
        cure="pip install 'gemma4-conformance[mlx-lm]'",
        sets_floors=True,
    ),
    "transformers": _Entry(module="transformers.adapter", factory="TransformersAdapter", cure=_TORCH, sets_floors=True),
    "transformers_sdpa": _Entry(
        module="transformers.adapter", factory="TransformersSdpaAdapter", cure=_TORCH, sets_floors=True
    ),
    "pure_python": _Entry(
        module="pure_python", factory="PurePythonAdapter", cure="reinstall gemma4-conformance", sets_floors=True
    ),
    "javascript": _Entry(module="javascript", factory="JavaScriptAdapter", cure="install Node 20, run in a checkout"),
    # `conformance.calibration.floors` makes its own variants of the oracle.
    "oracle": _Entry(module="oracle", factory="OracleAdapter", cure="reinstall gemma4-conformance", sets_floors=False),
}


def create(name: str, limits: Limits | None = None, profiles: Collection[str] | None = None) -> Adapter:
    """The adapter with this name, of the class `package.module:Class`, of a command, of a file, or of a known mistake.

    A command is `port:COMMAND` or `once:COMMAND`, a file `dump:FILE`, a known mistake `mutant:ID`.

    `limits` are what a command may use for an answer, `profiles` the profiles that it may offer (None: those of the
    installed fixtures). BadOption when there is no such adapter, AdapterUnavailable when its packages are missing or
    it cannot be made, FixtureError for a file that cannot be read.
    """
    if name.startswith(PORT):
        try:
            return ProcessAdapter(_words(name.removeprefix(PORT)), limits, profiles)
        except PortFault as error:
            raise AdapterUnavailable(f"--port: {error}") from None
    if name.startswith(ONE_SHOT):
        return OneShotAdapter(_words(name.removeprefix(ONE_SHOT)), limits)
    if name.startswith(DUMP):
        return DumpAdapter(Path(name.removeprefix(DUMP)))
    if name.startswith(MUTANT):
        return _mutant(name)
    own_module, colon, own_class = name.partition(":")
    if colon:
        path, entry = own_module, _Entry(module=own_module, factory=own_class, cure="mend the module")
    elif name in ADAPTERS:
        entry = ADAPTERS[name]
        path = f"conformance.adapters.{entry.module}"
    else:
        raise BadOption(f"--impl: got {name!r}, expected one of {', '.join(ADAPTERS)}, or package.module:Class")
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise AdapterUnavailable(f"--impl {name}: {error}; {entry.cure}") from None
    except Exception as error:  # foreign code: whatever it raises, the run ends with one line
        raise broken(name, error) from None
    if not hasattr(module, entry.factory):
        raise BadOption(f"--impl: got {name!r}, expected a class of {entry.module}; it has none of that name")
    try:
        adapter: Adapter = getattr(module, entry.factory)()
    except PortFault as error:
        raise AdapterUnavailable(f"--impl {name}: {error}; {entry.cure}") from None
    except Exception as error:  # as above
        raise broken(name, error) from None
    return adapter


def hello_of(adapter: Adapter, name: str) -> Hello:
    """The hello of an adapter; AdapterUnavailable if hello() does not return a valid Hello."""
    try:
        hello = adapter.hello()
    except Exception as error:  # as in create
        raise broken(name, error) from None
    if not isinstance(hello, Hello):
        raise AdapterUnavailable(f"--impl {name}: hello() gave {type(hello).__name__}, expected a Hello")
    return hello


def _mutant(name: str) -> Adapter:
    """The reference with the known mistake in it that `mutant:ID` names."""
    try:
        from conformance.adapters.mutant import MutantAdapter, known_mistake
    except ImportError as error:
        raise AdapterUnavailable(f"--impl {name}: {error}; reinstall gemma4-conformance") from None
    return MutantAdapter(known_mistake(f"--impl {MUTANT}ID", name.removeprefix(MUTANT)))


def _words(command: str) -> list[str]:
    """A command as a shell would split it."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadOption(f"the command {command!r} cannot be split: {error}") from None
    if not words:
        raise BadOption("the command of the port is empty")
    return words


def broken(name: str, error: Exception) -> AdapterUnavailable:
    """An exception of an adapter as one line."""
    return AdapterUnavailable(f"--impl {name}: {type(error).__name__}: {' '.join(str(error).split())}")
