"""The table of layers says how each was answered, and names the case that was answered worst."""

from benchmarks.layers import main, page
from tests.adapt.sweep import Case, Finding


def test_a_layer_is_called_after_its_worst_case():
    case = Case("8 tasks", 2, 2)
    text = page({
        "conv A": [Finding("stacked", 1e-16, "", case), Finding("wrong", 0.5, "", case)],
        "torch B": [Finding("stacked", 0.0, "", case), Finding("loop", 2e-16, "einsum | such", case)],
    })  # fmt: skip
    assert "| A | wrong (1 of 2) | 5e-01 | 8 tasks, order 2, 2 steps, scope encoder + head |" in text
    assert "| B | loop | 2e-16 | einsum \\| such |" in text
    assert "2 layers, 4 cases" in text and "## Layers of torch" in text and "**wrong** (1)" in text


def test_the_table_is_written(tmp_path):
    main(["--only", "torch Linear of one", "--out", str(tmp_path / "docs" / "layers.md")])
    assert "| Linear of one | stacked |" in (tmp_path / "docs" / "layers.md").read_text()
