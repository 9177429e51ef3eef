"""A drop-in for ``llama_cpp.Llama``, in what people use of it.

- ``llama``: the class
- ``arguments``: what its constructor takes, and what of that means something here
- ``sampling``: the sampling arguments of its methods as settings
- ``prompts``: prompts as its methods take them
- ``embedding``, ``states``: what else it has
"""

from edge_conflayers.llama.llama import Llama as Llama
from edge_conflayers.llama.states import LlamaState as LlamaState

__all__ = ["Llama", "LlamaState"]
