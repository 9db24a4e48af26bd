"""Result files of the last version are read with today's names, and say so."""

import json
import shlex
import warnings

import pytest

from benchmarks.old_results import renamed, renamed_command, renamed_variant
from benchmarks.rows import read, results
from benchmarks.tables import HERE

OLD = {
    "dataset": "d",
    "protocol": "cbml",
    "system": "second_look",
    "arguments": {"base": "niser", "options": {"extras": ["returns", "kin", "evidence"]}, "scope": ["head.extras"]},
    "slices": {"known clicks": {"1": {"samples": 0}}},
    "seed": 0,
    "command": 'python -m benchmarks.accuracy d second_look --arguments \'{"options": {"extras": ["returns"]}}\' '
    "--start-from saved/niser_extras --then saved/second_look --uncounted 9 --only recommender.head.extras --tag then",
}
NEW = {
    "dataset": "d",
    "protocol": "cbml",
    "system": "reranker",
    "arguments": {
        "base": "niser",
        "options": {"score_terms": ["repeat_bias", "same_category", "cooccurrence"]},
        "scope": ["head.score_terms"],
    },
    "slices": {"context length": {"1": {"samples": 0}}},
    "seed": 0,
    "command": 'python -m benchmarks.accuracy d reranker --arguments \'{"options": {"score_terms": '
    '["repeat_bias"]}}\' --warm-start saved/niser_score_terms --refit-base saved/reranker --statistics-held-out 9 '
    "--only recommender.head.score_terms --tag refit",
}


def test_an_old_file_is_translated_with_a_warning(tmp_path):
    path = tmp_path / "d-cbml-second_look-then-seed0.json"
    path.write_text(json.dumps(OLD))
    with pytest.warns(UserWarning, match="names of an earlier version"):
        assert read(path) == NEW
    with pytest.warns(UserWarning, match="names of an earlier version"):
        assert results("d", "cbml", "reranker", folder=tmp_path) == [NEW]


def test_translation_leaves_todays_names_alone():
    assert renamed(NEW) == NEW and renamed_variant("score_terms-nogate") == "score_terms-nogate"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(results(folder=HERE / "results")) > 400


def test_commands_are_those_of_the_tables():
    commands = [each for table in json.loads((HERE / "tables.json").read_text()).values() for each in table]
    assert [renamed_command(each) for each in commands] == commands
    assert not {"--then", "--start-from", "--uncounted"} & {word for each in commands for word in shlex.split(each)}
