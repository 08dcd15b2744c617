"""The documentation's examples run, and what it lists exists."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import ladd_dist.__main__
import ladd_dist.recipe
import plugins
from ladd_dist import (
    compare,
    control,
    diagnose,
    doctor,
    evaluate,
    export,
    guidance,
    jobs,
    launch,
    new,
    plan,
    prompts,
    sample,
    sweep,
    tune,
)
from ladd_dist import plugins as cli
from ladd_dist import search_levels as levels
from ladd_dist.cli.renamed import RENAMED
from ladd_dist.core.plugin import lookup, registered
from ladd_dist.testing import check_head, check_plugin

assert ladd_dist.recipe and plugins  # imported for their registration
PLUGINS = Path(__file__).parent.parent / "docs" / "plugins.md"


def python_blocks(path: Path) -> list[str]:
    """Contents of the ```python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def my_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_tables: None) -> Iterator[None]:
    """The page's first example as the module it says, importable."""
    (tmp_path / "my_heads.py").write_text(python_blocks(PLUGINS)[0], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_heads", None)


def test_the_head_of_the_plugin_page_keeps_the_contract(my_heads: None) -> None:
    module = importlib.import_module("my_heads")
    check_head(module.MyHead())
    assert lookup("head", "my_head") is module.MyHead


def test_the_check_command_of_the_plugin_page_works_as_printed(
    my_heads: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "ladd plugins --check my_head --plugins my_heads"
    assert command in PLUGINS.read_text(encoding="utf-8")
    assert cli.main(command.split()[2:]) == 0
    assert capsys.readouterr().out == "head my_head: ok\n"


def test_the_head_of_the_plugin_page_is_short() -> None:
    lines = [line for line in python_blocks(PLUGINS)[0].splitlines() if line.strip()]
    assert len(lines) <= 22


@pytest.mark.parametrize("name", ["bump", "switch_on"])
def test_the_schedules_of_the_plugin_page_keep_their_contract(name: str, own_tables: None) -> None:
    (code,) = [block for block in python_blocks(PLUGINS) if f'@register("{name}")' in block]
    exec(compile(code, f"{name}.py", "exec", dont_inherit=True), {"__name__": name})
    check_plugin(lookup("schedule", name))


def test_the_guard_of_the_plugin_page_keeps_its_contract(own_tables: None) -> None:
    (code,) = [block for block in python_blocks(PLUGINS) if '@register("heads_matter")' in block]
    exec(compile(code, "heads_matter.py", "exec", dont_inherit=True), {"__name__": "heads_matter"})
    check_plugin(lookup("guard", "heads_matter"))


def test_the_plugin_page_lists_every_kind_with_its_base_class() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `([\w.]+)` \|", PLUGINS.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(rows) == set(registered())
    for kind, path in rows.items():
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(module), name).kind == kind


# --- all pages: what they name exists ---

REPO = PLUGINS.parent.parent
PAGES = sorted([*REPO.glob("*.md"), *(REPO / "docs").glob("*.md"), *(REPO / "slurm").glob("*.md")])
INDEX = REPO / "docs" / "index.md"
TOP = "ladd_dist|plugins|recipes|slurm|tests|benchmarks|docs|\\.ci"


def text_of(page: Path) -> str:
    """The page, without what readers do not see."""
    return re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text_of(page))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text_of(page), flags=re.S | re.M), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_anchors_of_links_are_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", text_of(page))
    targets = [(page.parent / path if path else page, anchor) for path, anchor in links if "://" not in path]
    missing = [f"{target.name}#{anchor}" for target, anchor in targets if anchor not in anchors_of(target)]
    assert not missing


def test_the_index_links_every_page_and_the_readme_links_the_index() -> None:
    linked = set(re.findall(r"\]\(([\w.]+\.md)\)", text_of(INDEX)))
    assert linked == {page.name for page in INDEX.parent.glob("*.md")} - {INDEX.name}
    assert "](docs/index.md)" in text_of(REPO / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_what_examples_import_exists(page: Path) -> None:
    for block in python_blocks(page):
        if block.startswith("# ladd_dist/"):
            continue  # an excerpt, compared with its file below
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
                "ladd_dist",
                "plugins",
                "recipes",
            ):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names), node.module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_named_files_exist(page: Path) -> None:
    names = set(re.findall(rf"(?<![\w/.-])((?:{TOP})/[\w./*<>-]*\w\.(?:py|md|json|html))", text_of(page)))
    missing = [name for name in names if not any(REPO.glob(name))]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_named_commands_exist(page: Path) -> None:
    text = text_of(page)
    for module in set(re.findall(r"python -m (ladd_dist(?:\.\w+)*)", text)):
        if module.endswith(".NAME"):
            continue
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        package = spec.submodule_search_locations is not None
        assert not package or importlib.util.find_spec(f"{module}.__main__"), module
    known = {*ladd_dist.__main__.COMMANDS, *(RENAMED if page.name == "CHANGELOG.md" else ())}
    for command in set(re.findall(r"(?m)(?:`|^ *|\bsrun .*?)ladd ([\w-]+)", text)) - {"NAME", "--version"}:
        assert command in known
    for target in set(re.findall(r"(?m)(?:^|`)make ([a-z]+)", text)):
        assert re.search(rf"^{target}:", text_of(REPO / "Makefile"), re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_excerpts_are_lines_of_the_file_they_name(page: Path) -> None:
    for block in python_blocks(page):
        first, _, rest = block.partition("\n")
        if first.startswith("# ladd_dist/"):
            source = {line.strip() for line in text_of(REPO / first.removeprefix("# ")).splitlines()}
            for line in rest.splitlines():
                assert line.strip() in source, f"{first}: {line}"


def test_the_head_of_the_readme_is_the_one_of_the_plugin_page() -> None:
    assert python_blocks(REPO / "README.md")[0] == python_blocks(PLUGINS)[0]


def recipes_of(page: Path) -> list[str]:
    """The recipes with a row of their own in a table of the page."""
    return re.findall(r"^\| `(recipes/\w+\.py)` \|", text_of(page), re.MULTILINE)


def test_a_page_lists_every_recipe_and_the_readme_six() -> None:
    every = recipes_of(REPO / "docs" / "recipes.md")
    assert sorted(every) == sorted(f"recipes/{path.name}" for path in (REPO / "recipes").glob("[!_]*.py"))
    assert len(set(recipes_of(REPO / "README.md")) & set(every)) == 6 == len(recipes_of(REPO / "README.md"))


def test_the_first_screen_of_the_readme_has_two_sentences_a_picture_and_the_two_commands() -> None:
    parts = re.split(r"\n\n+", text_of(REPO / "README.md"))
    sentences = re.findall(r"\.(?= [A-Z]|$)", re.sub(r"\([^()]*\)", "", " ".join(parts[1].split())))
    assert len(sentences) == 2 and "arXiv 2403.12015" in parts[1]
    assert parts[2].startswith("![")
    commands = next(part for part in parts if part.startswith("```")).splitlines()[1:3]
    assert [line.split("  ")[0] for line in commands] == ["make demo", "make test"]
    screen = text_of(REPO / "README.md").partition(commands[1])[0]
    assert len(screen.splitlines()) <= 20


def test_the_readme_writes_commands_one_way_and_names_its_sources() -> None:
    text = text_of(REPO / "README.md")
    assert text.count("python -m ladd_dist") == 1
    assert all(name in text for name in ("Ignatov and Leontenkov", "2206.00364", "2403.12015", "2311.17042"))
    goals = re.findall(r"[^.*]*not goals[^.]*\.", text)
    assert goals and not any("ext-to-image" in sentence for sentence in goals)


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads(text_of(REPO / "pyproject.toml"))["project"]
    optional = [name for extra in project["optional-dependencies"].values() for name in extra]
    asked = [name for name in [*project["dependencies"], *optional] if not name.startswith("ladd_dist")]
    section = text_of(REPO / "docs" / "architecture.md").partition("\n## Dependencies\n")[2]
    reasons = dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", section, re.MULTILINE))
    assert list(reasons) == list(dict.fromkeys(re.split(r"[<>=!~\[; ]", name)[0] for name in asked))


@pytest.mark.parametrize(
    ("command", "options", "more"),
    [
        ("launch", launch.Options, {"seed"}),
        ("tune", tune.Options, set()),
        ("new", new.Options, set()),
        ("prompts", prompts.Options, set()),
        ("plugins", cli.Options, set()),
        ("levels", levels.Options, set()),
        ("guidance", guidance.Options, set()),
        ("plan", plan.Options, set()),
        ("diagnose", diagnose.Options, set()),
        ("sample", sample.Options, set()),
        ("evaluate", evaluate.Options, set()),
        ("export", export.Options, set()),
        ("control train", control.Train, set()),
        ("control apply", control.Apply, set()),
        ("control transfer", control.Transfer, set()),
        ("compare", compare.Options, set()),
        ("jobs", jobs.Options, set()),
        ("sweep", sweep.Options, set()),
        ("doctor", doctor.Options, set()),
    ],
)
def test_the_flags_of_a_command_are_those_of_its_table(command: str, options: type, more: set[str]) -> None:
    text = text_of(REPO / "docs" / "cli.md")
    section = text.partition(f"\n## `ladd {command}`\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`--[^|]+) \|", section, re.MULTILINE)
    listed = {flag for cell in cells for flag in re.findall(r"`--([\w-]+)`", cell)}
    named = [field.name for field in dataclasses.fields(options) if "Positional" not in str(field.type)]
    assert listed == {name.rstrip("_").replace("_", "-") for name in named} | more
    assert more <= {field.name for field in dataclasses.fields(ladd_dist.recipe.Recipe)}


def test_a_dry_run_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPO)
    example = re.search(r"^```json dry-run\n(.*?)^```", text_of(REPO / "docs" / "cli.md"), re.DOTALL | re.MULTILINE)
    assert example is not None
    command = ["recipes/exp6_stored_noise.py", "--scale", "smoke", "--out", str(tmp_path), "--cache", str(tmp_path)]
    assert launch.main([*command, "--dry-run", "--json"]) == 0
    printed, expected = json.loads(capsys.readouterr().out), json.loads(example[1])
    for varying in ("signature", "flops"):
        assert type(printed[varying]) is type(expected[varying])
    assert list(printed) == list(expected)
    assert list(printed["flops"]) == list(expected["flops"])
    varying_ones: dict[str, object] = {"signature": "", "flops": {}}
    assert {**printed, **varying_ones} == {**expected, **varying_ones}


def test_ci_can_be_run_and_runs_what_developers_run() -> None:
    script = REPO / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make check" in text_of(script)
