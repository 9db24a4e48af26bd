"""What a row took is what it and all the rows took that it stands on, each once."""

from benchmarks.pictures import makers, seconds


def row(took, *words):
    return {"wall_s": took, "command": " ".join(["python -m benchmarks.accuracy d s", *words])}


def test_the_minutes_of_a_row_are_those_of_all_that_it_begins_and_ends_with():
    base, whole = row(1, "--save saved/base"), row(20, "--warm-start saved/base --save saved/whole")
    mixed = row(300, "--warm-start saved/base --refit-base saved/whole --save saved/mixed")
    rows = [base, whole, mixed, row(4000, "--warm-start saved/mixed"), row(50_000, "--warm-start saved/elsewhere")]
    start = makers(rows)
    assert [seconds(one, start) for one in rows] == [1, 21, 321, 4321, 50_000]
