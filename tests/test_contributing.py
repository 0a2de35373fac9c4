"""docs/CONTRIBUTING.md says which files a variant of the model touches: that is checked here."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "minimind"
FIELDS = {"LoRA": {"lora"}, "mixture of experts": {"moe"}, "eyes": {"vision", "image_features"}}
"""What a configuration or a batch calls each variant."""


def table():
    """Return the files of each variant: its own, and those that a few lines of went into."""
    text = (ROOT / "docs" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in FIELDS:
            own, touched = ({*re.findall(r"`([\w/]+\.py|\w+/)`", cell)} for cell in cells[1:3])
            rows[cells[0]] = own, touched
    return rows


def mentions(path, *, fields, modules):
    """Tell whether code (not its comments) reads one of the fields, or imports of the modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in fields:
            return True
        if isinstance(node, ast.keyword) and node.arg in fields:
            return True
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if node.target.id in fields:
                return True
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            if any(name == m or name.startswith(f"{m}.") for name in names for m in modules):
                return True
    return False


@pytest.mark.parametrize("variant", FIELDS)
def test_a_variant_touches_what_the_table_says(variant):
    own, touched = table()[variant]
    for name in own | touched:
        assert (SOURCE / name).exists(), f"{name} is in the table, not in src/minimind"
    modules = {f"minimind.{name.removesuffix('.py').strip('/')}".replace("/", ".") for name in own}
    if variant == "LoRA":  # by the package's own door as well
        public = ("LoRALinear", "inject_lora", "merge_lora", "lora_state_dict",
                  "load_lora_state_dict", "lora_config_from_adapter")  # fmt: skip
        modules |= {f"minimind.model.{name}" for name in public}
    folders = tuple(name for name in own if name.endswith("/"))
    found = {
        name
        for path in SOURCE.rglob("*.py")
        if (name := path.relative_to(SOURCE).as_posix()) not in own
        and not name.startswith(folders)
        and mentions(path, fields=FIELDS[variant], modules=modules)
    }
    assert found == touched, "docs/CONTRIBUTING.md, `A variant of the model`, says otherwise"


def test_the_loop_knows_no_variant():
    """Nor do the hooks, the optimisers' steps and the schedule, which every stage shares."""
    for name in ("trainer.py", "hooks.py", "schedule.py", "metrics.py", "rng.py"):
        path = SOURCE / "train" / name
        words = {word for fields in FIELDS.values() for word in fields} | {"dpo"}
        found = {node.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Name) and node.id in words}  # fmt: skip
        assert not found, f"{name}: {found}"
        assert not mentions(path, fields=words, modules={"minimind.vision"}), name
