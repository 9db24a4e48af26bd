"""What the project says of itself agrees: versions, extras and the templates of issues."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version_in_project_citation_and_changelog() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest and PROJECT["version"] == citation["version"] == newest[1]


def test_extras_are_those_of_the_readme() -> None:
    listed = re.search(r"^Extras: `([a-z, ]+)`", (ROOT / "README.md").read_text(), re.M)
    assert listed and set(listed[1].split(", ")) == set(PROJECT["optional-dependencies"])


def test_templates_and_hooks_can_be_read() -> None:
    forms = [path for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"]
    assert [form.stem for form in forms] == ["bug", "feature", "results"]
    for form in forms:
        assert {"name", "description", "body"} <= yaml.safe_load(form.read_text()).keys()
    hooks = [
        hook["id"]
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
    ]
    assert {"ruff-check", "ruff-format", "words"} <= set(hooks)


def test_the_page_of_corrections_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "fidelity.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 25 and len(named) == len(re.findall("`tests/[^`]*\\.py", page))
    missing = [f"{file}::{name}" for file, name in named if f"\ndef {name}(" not in (ROOT / file).read_text()]
    assert not missing
