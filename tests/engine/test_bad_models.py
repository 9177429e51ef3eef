"""Files that no model can be loaded from end in one line, whatever is in them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
from damaged_models import end_of, with_value
from gguf_models import ARCHITECTURES
from installed import PACKAGE
from steps import TinyPath

from edge_conflayers.engine import aborts
from edge_conflayers.engine.gguf_header import read_header
from edge_conflayers.engine.model import Model
from edge_conflayers.engine.model_checks import check_file
from edge_conflayers.errors import BadInput

_TESTS = Path(__file__).resolve().parents[1]
_NAN = float("nan")

VALUES = [
    ("llama", "llama.block_count", 0, "block_count is 0, but must be from 1 to 512"),
    ("llama", "llama.block_count", 2**32 - 1, "block_count is 4294967295"),
    ("llama", "llama.block_count", 3, "cannot be loaded"),
    ("llama", "llama.embedding_length", 0, "embedding_length is 0"),
    ("llama", "llama.embedding_length", 63, "cannot be loaded"),
    ("llama", "llama.context_length", 0, "context_length is 0"),
    ("llama", "llama.attention.head_count", 0, "head_count is 0"),
    ("gpt2", "gpt2.attention.head_count", 0, "head_count is 0"),
    ("llama", "llama.attention.head_count", 5, "must be a multiple of 2"),
    ("llama", "llama.rope.dimension_count", 0, "rope.dimension_count is 0, but must be even"),
    ("llama", "llama.rope.dimension_count", 8, "is 8, but a head has 16 dimensions"),
    ("gptneox", "gptneox.rope.dimension_count", 0, "rope.dimension_count is 0"),
    ("gptneox", "gptneox.rope.dimension_count", 7, "rope.dimension_count is 7"),
    ("llama", "llama.attention.layer_norm_rms_epsilon", -1, "epsilon is -1.0"),
    ("gpt2", "gpt2.attention.layer_norm_epsilon", _NAN, "epsilon is nan"),
    ("mamba", "mamba.attention.layer_norm_rms_epsilon", _NAN, "epsilon is nan"),
    ("mamba", "mamba.block_count", 0, "block_count is 0"),
    ("mamba", "mamba.ssm.inner_size", 0, "cannot be loaded"),
    ("qwen2moe", "qwen2moe.expert_count", 0, "expert_used_count is 2, but .*expert_count is 0"),
    ("qwen2moe", "qwen2moe.expert_used_count", 0, "expert_used_count is 0"),
    ("qwen2moe", "qwen2moe.expert_count", 2000, "expert_count is 2000, but must be at most 1024"),
]


@pytest.mark.parametrize(("arch", "key", "value", "says"), VALUES)
def test_a_value_that_makes_no_model(
    tiny_path: TinyPath, tmp_path: Path, arch: str, key: str, value: Any, says: str
) -> None:
    path = with_value(tiny_path(arch), key, value, tmp_path / "bad.gguf")
    with pytest.raises(BadInput, match=says) as error:
        Model(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_whole_models_are_not_refused(tiny_path: TinyPath, arch: str) -> None:
    check_file(tiny_path(arch))


@pytest.mark.model
def test_real_models_are_not_refused(real_model: Any) -> None:
    for name in ("smollm2-135m", "qwen2.5-coder-0.5b", "gemma3-270m"):
        check_file(real_model(name).path)


def test_the_header_is_read_as_by_the_gguf_package(tiny_path: TinyPath) -> None:
    path = tiny_path("gemma3")
    header = read_header(path)
    reader = gguf.GGUFReader(str(path))
    for key, value in header.values.items():
        theirs = reader.fields[key].contents()
        assert (list(value) if isinstance(value, tuple) else value) == theirs, key
    assert header.n_tensors == len(reader.tensors)
    assert header.lengths["tokenizer.ggml.tokens"] == 320
    assert set(header.values) | set(header.lengths) == {
        key for key in reader.fields if not key.startswith("GGUF.")
    }


def rewritten(path: Path, target: Path, at: int, new: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + len(new)] = new
    target.write_bytes(data)
    return target


@pytest.mark.parametrize(
    ("at", "new", "says"),
    [
        (0, b"GGML", "not a GGUF file"),
        (4, struct.pack(">I", 3), "big-endian"),
        (4, struct.pack("<I", 1), "version 1; versions 2 and 3"),
        (4, struct.pack("<I", 4), "version 4"),
        (8, struct.pack("<q", -1), "counts more entries"),
        (8, struct.pack("<q", 2**40), "counts more entries"),
        (16, struct.pack("<q", -5), "counts more entries"),
        (16, struct.pack("<q", 2**62), "counts more entries"),
        (24, struct.pack("<Q", 2**63), "a key that is too long"),
    ],
)
def test_a_wrong_beginning(
    tiny_path: TinyPath, tmp_path: Path, at: int, new: bytes, says: str
) -> None:
    path = rewritten(tiny_path("llama"), tmp_path / "bad.gguf", at, new)
    with pytest.raises(BadInput, match=says):
        Model(path)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.001, 0.01, 0.05, 0.5, 0.999])
def test_a_file_that_is_cut_off(tiny_path: TinyPath, tmp_path: Path, share: float) -> None:
    data = tiny_path("llama").read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(
        BadInput, match=r"cut off|not a GGUF|damaged in its header|cannot be"
    ) as error:
        Model(path)
    assert "\n" not in str(error.value)


def written(path: Path, arch: str, **values: Any) -> Path:
    writer = gguf.GGUFWriter(path, arch)
    for key, value in values.items():
        key = key.replace("__", ".")
        if isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_uint16(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("arch", "values", "says"),
    [
        ("llama", {"general__type": "adapter"}, "is a LoRA adapter, not a language model"),
        ("clip", {"general__type": "mmproj"}, "is a projector for images"),
        ("clip", {}, "is a projector for images"),
        ("imatrix", {"general__type": "imatrix"}, "is an importance matrix"),
        ("llama", {}, "holds no weights"),
        ("llama", {"split__count": 3, "split__no": 1}, "a later part .*give the first of its 3"),
        ("llama", {"split__count": 3, "split__no": 0}, r"name them as they were, \*-00001-of-"),
    ],
)
def test_files_that_are_no_models(
    tmp_path: Path, arch: str, values: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        Model(written(tmp_path / "a.gguf", arch, **values))


def test_a_part_is_missing(tmp_path: Path) -> None:
    first = written(tmp_path / "a-00001-of-00002.gguf", "llama", split__count=2, split__no=0)
    second = tmp_path / "a-00002-of-00002.gguf"
    with pytest.raises(BadInput, match=r"a-00002-of-00002\.gguf is missing"):
        Model(first)
    written(second, "llama", split__count=3, split__no=1)
    with pytest.raises(BadInput, match=r"a-00002-of-00002\.gguf is not part 2 of a-00001"):
        Model(first)
    second.write_bytes(b"GGUF")
    with pytest.raises(BadInput, match=r"a-00002-of-00002\.gguf is cut off"):
        Model(first)


def test_a_split_model_is_loaded(tiny_path: TinyPath, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(str(tiny_path("llama")))
    half = len(reader.tensors) // 2
    for number, tensors in enumerate((reader.tensors[:half], reader.tensors[half:])):
        path = tmp_path / f"a-{number + 1:05d}-of-00002.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        for key, field in reader.fields.items() if number == 0 else ():
            if not key.startswith("GGUF.") and key != "general.architecture":
                element = field.types[1] if len(field.types) > 1 else None
                writer.add_key_value(key, field.contents(), field.types[0], element)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    with Model(tmp_path / "a-00001-of-00002.gguf") as model:
        assert model.n_layer == 4
    with pytest.raises(BadInput, match="a later part of a split model"):
        Model(tmp_path / "a-00002-of-00002.gguf")


def test_an_unknown_architecture(tiny_path: TinyPath, tmp_path: Path) -> None:
    data = tiny_path("llama").read_bytes().replace(b"llama", b"lLama", 1)
    path = tmp_path / "unknown.gguf"
    path.write_bytes(data)
    with pytest.raises(BadInput, match="unknown model architecture: 'lLama'"):
        Model(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "none.gguf", "does not exist"), (tmp_path, "cannot be read")):
        with pytest.raises(BadInput, match=says):
            Model(path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that takes any name")
def test_a_name_that_is_not_utf8(tiny_path: TinyPath, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"m\xff.gguf")
    path.write_bytes(tiny_path("llama").read_bytes())
    with Model(path) as model:
        assert model.n_layer == 4


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
# With other seeds and more of them: `python tests/damaged_models.py FOLDER SEED COUNT`.


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(_TESTS), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": paths},
    )


def test_weights_that_are_no_numbers(tiny_path: TinyPath, tmp_path: Path) -> None:
    data = tiny_path("llama").read_bytes()
    path = tmp_path / "nan.gguf"
    path.write_bytes(data[:-4000] + b"\xff" * 4000)
    done = run_python(
        "from edge_conflayers.text_generator import TextGenerator\n"
        f"with TextGenerator({str(path)!r}, threads=1, fresh=True) as writer:\n"
        "    list(writer.generate([5, 6], max_tokens=4))"
    )
    assert done.returncode == 1
    assert "computes no numbers (its logits are NaN)" in done.stderr.splitlines()[-1]


def test_an_abort_is_one_line_on_standard_error(tiny_path: TinyPath, tmp_path: Path) -> None:
    # Two tokens with one text, which llama.cpp asserts against.
    data = tiny_path("llama").read_bytes().replace(b"<0x41>", b"<0x42>", 1)
    path = tmp_path / "twice.gguf"
    path.write_bytes(data)
    done = run_python(
        "from edge_conflayers.engine.model import Model\n"
        f"print('the text', end=''); Model({str(path)!r})"
    )
    assert (done.returncode, done.stdout) == (1, "the text")
    (line,) = done.stderr.splitlines()
    assert line.startswith("edge-conflayers: llama.cpp gave up (llama-vocab.cpp:")


def test_messages_of_aborts() -> None:
    line = aborts.describe("/home/x/y/ggml.c:12: GGML_ASSERT(a\n && b) failed")
    assert "gave up (ggml.c:12: GGML_ASSERT(a && b) failed)" in line and line.count("\n") == 1


@needs_fork
@pytest.mark.parametrize("seed", [0, 10_000])
def test_damage_at_random(tmp_path: Path, seed: int) -> None:
    code = (
        "import sys; from pathlib import Path; import damaged_models\n"
        f"damaged_models.main(Path({str(tmp_path)!r}), {seed}, 60, [])"
    )
    done = run_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_fork
def test_the_test_of_damage_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def abort(path: Path) -> None:
        os.kill(os.getpid(), 9)

    monkeypatch.setattr("damaged_models._write_with", abort)
    assert "exit code -9" in str(end_of(tmp_path / "none.gguf"))
    monkeypatch.setattr("damaged_models._write_with", lambda path: os.write(1, b"noise"))
    assert "standard output b'noise'" in str(end_of(tmp_path / "none.gguf"))
