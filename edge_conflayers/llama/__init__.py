"""A drop-in for ``llama_cpp.Llama``, in what people use of it.

- ``llama``: the class
- ``arguments``: what its constructor takes, and what of that means something here
- ``sampling``: the sampling arguments of its methods as settings
- ``prompts``: prompts as its methods take them
- ``evaluation``: a loop of one's own
- ``embedding``, ``states``: what else it has
- ``turns``: one text at a time, of several threads
- ``pretrained``: files of Hugging Face
- ``stand_in``: for code that imports ``llama_cpp`` by that name
"""

from edge_conflayers.llama.llama import Llama as Llama
from edge_conflayers.llama.stand_in import install_as_llama_cpp as install_as_llama_cpp
from edge_conflayers.llama.states import LlamaState as LlamaState

__all__ = ["Llama", "LlamaState", "install_as_llama_cpp"]
