"""Runs the Python blocks of a README as they stand there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any


def blocks(path: Path) -> list[str]:
    """The blocks that are marked as Python, in their order."""
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def run(block: str, path: Path, names: dict[str, Any]) -> None:
    """Runs a block, statement by statement. A comparison that stands alone is a claim, too."""
    for statement in ast.parse(block).body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Compare):
            assert eval(compile(ast.Expression(statement.value), str(path), "eval"), names), ast.unparse(statement)
        else:
            exec(compile(ast.Module([statement], []), str(path), "exec"), names)
