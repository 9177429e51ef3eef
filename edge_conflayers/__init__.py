"""Makes one GGUF model generate faster by itself, and never changes its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_conflayers.completions.request import Piece as Piece
    from edge_conflayers.engine.sampling import SamplerSettings as SamplerSettings
    from edge_conflayers.errors import BadInput as BadInput
    from edge_conflayers.errors import EdgeConflayersError as EdgeConflayersError
    from edge_conflayers.generating import generate as generate
    from edge_conflayers.generating import load as load
    from edge_conflayers.generating import stream_generate as stream_generate
    from edge_conflayers.llama import Llama as Llama
    from edge_conflayers.llama import install_as_llama_cpp as install_as_llama_cpp

    __version__: str

_EXPORTS = {
    "load": "generating",
    "generate": "generating",
    "stream_generate": "generating",
    "Llama": "llama",
    "install_as_llama_cpp": "llama",
    "Piece": "completions.request",
    "SamplerSettings": "engine.sampling",
    "BadInput": "errors",
    "EdgeConflayersError": "errors",
}


def __getattr__(name: str) -> Any:
    """What the package exports, imported when it is asked for: that takes longer than all else
    here, and a Ctrl-C meanwhile would be shown as a traceback."""
    if name in _EXPORTS:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("edge-conflayers")
    except PackageNotFoundError:  # a checkout that is not installed
        return "0+unknown"


def __dir__() -> list[str]:
    return [*globals(), *_EXPORTS, "__version__"]
