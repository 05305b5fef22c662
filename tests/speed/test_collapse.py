"""`--collapse` on sizes small enough for a test."""

import json

from ncfair_jax.speed import collapse, tables


def test_every_measurement_tells_its_size_and_time(world, tmp_path):
    """GAP of 600 sentences: the pass is timed on full batches only."""
    lines = (world / "data" / "gap" / "gap_flipped.tsv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "gap").mkdir()
    (tmp_path / "gap" / "gap_flipped.tsv").write_text("\n".join([lines[0], *(10 * lines[1:])]) + "\n", encoding="utf-8")
    result = json.loads(json.dumps(collapse.run(str(world / "small"), str(tmp_path), classes=1100, width=8)))
    assert set(result) == {"pairs", "nc4", "pass"}
    assert all(found["peak_mib"] > 50 for found in result.values())
    assert (result["pairs"]["classes"], result["pairs"]["width"]) == (1100, 8)
    assert result["pairs"]["seconds"] > 0 and result["pairs"]["product_seconds"] > 0
    assert (result["nc4"]["classes"], result["nc4"]["rows"]) == (1100, collapse.NC4_ROWS)
    assert result["nc4"]["seconds"]["min"] > 0 and result["nc4"]["product_seconds"]["min"] > 0
    assert 0 < result["pass"]["tokens"] <= 600 * 128
    assert result["pass"]["tokens_per_second"]["min"] > 0
    table = tables.collapse_table(result)
    assert "1,100 classes × 8" in table
    assert table.count("\n") == 4  # header, rule and three measurements
