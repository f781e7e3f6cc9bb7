"""What is printed of a run's checks."""

from __future__ import annotations

from b44_assets.runs.outcome import CheckOutcome, check_lines


def test_of_many_warnings_the_first_are_printed_and_the_rest_counted_but_every_failure_is_told() -> None:
    warned = [CheckOutcome(f"t{number}", f"t{number}_unfit_rows", "warning", "rows") for number in range(30)]
    failed = CheckOutcome("posts", "row_parity", "failed", "one is missing")
    lines = [*check_lines([*warned, CheckOutcome("a", "indexes_valid", "warning", "one"), failed])]
    assert [line.partition(":")[0] for line in lines] == ["warning"] * 20 + ["failed", "warning"]
    assert "11 more" in lines[-1] and "10 unfit_rows, 1 indexes_valid" in lines[-1]
    assert [*check_lines(warned[:20])][-1] == "warning: t19 t19_unfit_rows: rows"
