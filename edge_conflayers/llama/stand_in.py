"""Stands in for an installed ``llama_cpp``, for code that imports it by that name."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from edge_conflayers.engine import native
from edge_conflayers.errors import EdgeConflayersError
from edge_conflayers.llama.llama import Llama
from edge_conflayers.llama.states import LlamaState

_NAME = "llama_cpp"
_OURS = {"Llama": Llama, "LlamaState": LlamaState}


def install_as_llama_cpp() -> None:
    """Has ``import llama_cpp`` give this package's ``Llama`` in this process from now on.

    For libraries that import llama-cpp-python themselves, such as LangChain and LlamaIndex. What
    else they take from there (``LlamaGrammar``, ``LogitsProcessorList``, ``llama_types``,
    ``llama_chat_format``, ``llama_cache``, ...) is llama-cpp-python's, over our library. It need
    not be installed; where it is, it is left alone. May be called again.

    Raises:
        EdgeConflayersError: an installed llama_cpp is imported already, so that parts of the
            program would go on with that one.
    """
    loaded = sys.modules.get(_NAME)
    if getattr(loaded, "Llama", None) is Llama:
        return
    if loaded is not None:
        raise EdgeConflayersError(
            f"llama_cpp is imported already ({getattr(loaded, '__file__', None)}); call"
            " install_as_llama_cpp() before anything imports it"
        )
    modules = native.binding_modules()
    for name in ("", "llama"):
        modules[name] = _with_ours(modules[name], f"{_NAME}.{name}".rstrip("."))
    package = modules[""]
    package.__path__ = []  # a module that is not loaded is not there
    package.__dict__["llama"] = modules["llama"]
    for name, module in modules.items():
        sys.modules[f"{_NAME}.{name}".rstrip(".")] = module


def _with_ours(module: ModuleType, name: str) -> ModuleType:
    """A module with another name and our classes."""
    found = ModuleType(name, module.__doc__)
    kept = {key: value for key, value in vars(module).items() if not key.startswith("__")}
    found.__dict__.update(kept | _OURS, __file__=module.__file__, __spec__=ModuleSpec(name, None))
    found.__dict__["__version__"] = getattr(module, "__version__", None)
    return found
