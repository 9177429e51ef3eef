"""Python in the pages compiles, and what it imports of ours is there."""

from __future__ import annotations

import ast
import importlib

import pytest
from doc_pages import PAGES, Block, python_blocks

BLOCKS = [block for page in PAGES for block in python_blocks(page)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_a_block_compiles_and_its_imports_are_there(block: Block) -> None:
    tree = ast.parse(block.text, block.where)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edge_conflayers"):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{block.where}: {node.module}.{name.name}"
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("edge_conflayers"):
                    importlib.import_module(name.name)


def test_there_are_blocks() -> None:
    assert {"README.md", "add-a-drafter.md"} <= {block.page.name for block in BLOCKS}
