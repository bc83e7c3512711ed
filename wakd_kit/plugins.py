"""Files and modules of one's own that declare objectives, strategies, models or benchmarks: whoever needs them imports them.

    use("my_losses.py")          here and now, and in every process that this one starts
    WAKD_PLUGINS                 the environment variable that names them to kernels and jobs, a list as JSON

A study names its own, ``plugins: [my_losses.py]``, as does ``wakd train --plugin my_losses.py``. Standard library only.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from .written import imported_files

NAMED = "WAKD_PLUGINS"
_loaded: dict[str, tuple[object, ModuleType]] = {}


def use(*plugins: str) -> None:
    """Import these, and let every process that is started from here know them. One whose file changed is imported again.

    plugins  files that end in .py, or names of modules
    Raises ``ValueError`` with the reason for one that cannot be imported, ``FileNotFoundError`` for one that is not there.
    """
    whole = [os.path.abspath(plugin) if plugin.endswith(".py") else plugin for plugin in plugins]
    bring(*whole)
    os.environ.update(naming(*whole))


def naming(*plugins: str) -> dict[str, str]:
    """The environment of a process that is to know these, beside those that this one's names; imports nothing."""
    both = dict.fromkeys([*named(), *plugins])
    return {NAMED: json.dumps(list(both))} if both else {}


def named() -> list[str]:
    """What the environment names, in order; one that is set by hand may be a single name."""
    text = os.environ.get(NAMED, "")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, list) else [text] if text else []


def known() -> list[str]:
    """What was imported here, then what the environment names beside it."""
    return list(dict.fromkeys([*_loaded, *named()]))


def bring(*plugins: str) -> None:
    """Import these here, and name them to nobody."""
    for plugin in plugins:
        _load(plugin)


def load() -> None:
    """Import what the environment names."""
    bring(*named())


def load_into(shell) -> None:
    """Import what the environment names into a kernel that begins; where that fails its first cell says so, for of what
    IPython says before it nothing reaches the notebook."""
    try:
        load()
    except (ValueError, OSError) as error:
        instead = [f"raise {type(error).__name__}({str(error)!r})\n"]
        shell.input_transformers_cleanup.append(lambda lines: instead)


def module_of(plugin: str) -> str:
    """The name of a plugin's module, which says nothing of where its file lies."""
    return f"wakd_plugin_{Path(plugin).stem}" if plugin.endswith(".py") else plugin


def files(plugin: str) -> list[Path]:
    """Its source: a file, or every file of a package. Raises ``FileNotFoundError`` where there is none."""
    if plugin.endswith(".py"):
        found = Path(plugin) if os.path.isfile(plugin) else None
    else:
        spec = _spec(plugin) if plugin.isidentifier() or "." in plugin else None
        found = Path(spec.origin) if spec and spec.origin else None
    if found is None:
        raise FileNotFoundError(
            f"No plugin at {plugin}. It is a file that ends in .py, or a module that can be imported; several in WAKD_PLUGINS are a JSON list."
        )
    return sorted(found.parent.rglob("*.py")) if found.name == "__init__.py" else [found]


def helpers(plugin: str) -> list[Path]:
    """The files of other modules of one's own that its source imports, and those that they import, wherever in them."""
    own = files(plugin)
    found = {other for file in own for other in imported_files(file)}
    return sorted(found - {*own})


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is; None where it, or a package that it should be in, is not there. Imports those packages."""
    try:
        return importlib.util.find_spec(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            return None
        raise ValueError(f"plugin {module}: {type(error).__name__}: {error}") from error


def _load(plugin: str) -> None:
    source = files(plugin)
    state = [hashlib.sha256(file.read_bytes()).hexdigest() for file in source]
    if plugin in _loaded and _loaded[plugin][0] == state:
        return
    name, before = module_of(plugin), {}
    try:
        if plugin.endswith(".py"):
            if name in sys.modules and Path(sys.modules[name].__file__) != source[0]:
                raise ValueError(f"{sys.modules[name].__file__} is a plugin of the same name; rename one of them")
            spec = importlib.util.spec_from_file_location(name, source[0])
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            if plugin in _loaded:  # anew, with all that is in it
                inside = [other for other in sys.modules if f"{other}.".startswith(f"{name}.")]
                before = {other: sys.modules.pop(other) for other in inside}
            module = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever is wrong with it: the user mends the file
        if plugin not in _loaded:
            sys.modules.pop(name, None)
        sys.modules.update(before)
        raise ValueError(f"plugin {plugin}: {type(error).__name__}: {error}") from error
    _loaded[plugin] = state, module
