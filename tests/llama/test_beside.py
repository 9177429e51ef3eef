"""An installed ``llama_cpp`` in the same process, and standing in for one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installed import PACKAGE
from steps import TinyPath

from edge_conflayers.bench.upstream_client import find_library
from edge_conflayers.engine import native
from edge_conflayers.errors import BadInput

BOTH = """
import ctypes, sys
OURS = "import edge_conflayers; from edge_conflayers import Llama"
THEIRS = "import llama_cpp"
for line in (OURS, THEIRS) if {ours_first} else (THEIRS, OURS):
    exec(line)
assert llama_cpp.__file__.startswith({site!r}), llama_cpp.__file__

# Each library has its own ggml: what it needs is not taken from the other.
from edge_conflayers.engine import ggml, native
def address(library):
    return ctypes.cast(library.ggml_backend_cpu_reg, ctypes.c_void_p).value
assert address(native.LIBRARY) == address(ggml.library("ggml-cpu"))
assert address(native.LIBRARY) != address(llama_cpp.llama_cpp._lib) or {same!r}

options = dict(n_ctx=256, n_threads=1, verbose=False, seed=3)
ours = Llama({model!r}, method="lookup", fresh=True, kernels="upstream", **options)
theirs = llama_cpp.Llama({model!r}, flash_attn=True, **options)
assert isinstance(theirs, llama_cpp.Llama) and not isinstance(ours, llama_cpp.Llama)
grammar = llama_cpp.LlamaGrammar.from_string('root ::= "yes" | "no"', verbose=False)
prompt = "one two three four one two three"
for _ in range(2):
    asked = dict(max_tokens=20, temperature=0.0)
    texts = [each(prompt, **asked)["choices"][0]["text"] for each in (ours, theirs)]
    assert texts[0] == texts[1], texts
    assert ours(prompt, grammar=grammar)["choices"][0]["text"] in ("yes", "no")
ours.close()
assert theirs(prompt, max_tokens=20, temperature=0.0)["choices"][0]["text"] == texts[1]
theirs.close()
print("done")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """A folder where a llama_cpp is installed, with upstream's library if that is built; and
    whether it has ours instead."""
    folder = tmp_path_factory.mktemp("site")
    binding = Path(native.binding_modules()[""].__file__ or "").parent
    shutil.copytree(binding, folder / "llama_cpp", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        library, ours = find_library(None), False
    except BadInput:
        library, ours = Path(native.LIBRARY._name).parent, True
    shutil.copytree(library, folder / "llama_cpp" / "lib")
    return folder, ours


def run(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, PACKAGE]))}
    env.pop("LLAMA_CPP_LIB_PATH", None)
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("ours_first", [True, False])
def test_an_installed_llama_cpp_works_in_the_same_process(
    site: tuple[Path, bool], tiny_path: TinyPath, ours_first: bool
) -> None:
    folder, same = site
    model = str(tiny_path("llama", n_layer=4, layer_gain=0.2))
    code = BOTH.format(ours_first=ours_first, site=str(folder), same=same, model=model)
    done = run(code, folder)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr[-2000:]


def test_importing_this_package_is_not_importing_llama_cpp(site: tuple[Path, bool]) -> None:
    code = "import sys; from edge_conflayers import Llama; print('llama_cpp' in sys.modules)"
    assert run(code, site[0]).stdout == "False\n"


STAND_IN = """
import importlib.util, sys
import edge_conflayers
edge_conflayers.install_as_llama_cpp()
edge_conflayers.install_as_llama_cpp()
import llama_cpp
import llama_cpp.llama as module
from llama_cpp import Llama, LlamaGrammar, LlamaCache, LogitsProcessorList, StoppingCriteriaList
from llama_cpp import ChatCompletionRequestMessage, CreateChatCompletionResponse, LlamaState
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from llama_cpp.llama_cache import LlamaRAMCache
from llama_cpp.llama_tokenizer import LlamaHFTokenizer
from llama_cpp.llama_types import ChatCompletionTool
assert Llama is edge_conflayers.Llama is module.Llama is llama_cpp.llama.Llama
assert llama_cpp.llama_cpp.llama_max_devices() and llama_cpp.__version__
assert importlib.util.find_spec("llama_cpp") is not None
try:
    import llama_cpp.mtmd_cpp
    raise SystemExit("this library has no mtmd")
except ImportError:
    pass
with Llama({model!r}, n_ctx=128, verbose=False, fresh=True, method="lookup") as llm:
    grammar = LlamaGrammar.from_string('root ::= "yes" | "no"', verbose=False)
    assert llm("a", grammar=grammar)["choices"][0]["text"] in ("yes", "no")
    seen = []
    watching = LogitsProcessorList([lambda t, l: seen.append(len(t)) or l])
    llm("a", max_tokens=3, logits_processor=watching)
    assert len(seen) == 3, seen
    ended = llm("a", max_tokens=9, stopping_criteria=StoppingCriteriaList([lambda t, l: True]))
    assert ended["usage"]["completion_tokens"] == 1, ended
print("done")
"""


def test_it_stands_in_for_llama_cpp(site: tuple[Path, bool], tiny_path: TinyPath) -> None:
    code = STAND_IN.format(model=str(tiny_path("llama", n_layer=2)))
    for paths in ((), (site[0],)):  # where none is installed, and where one is
        done = run(code, *paths)
        assert done.returncode == 0 and done.stdout == "done\n", done.stderr[-2000:]


def test_it_stands_in_for_none_that_is_imported(site: tuple[Path, bool]) -> None:
    code = "import llama_cpp, edge_conflayers; edge_conflayers.install_as_llama_cpp()"
    done = run(code, site[0])
    assert done.returncode != 0
    assert "llama_cpp is imported already" in done.stderr.splitlines()[-1]
