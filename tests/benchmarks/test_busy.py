"""The benchmark of a busy machine, with a second for each measurement."""

import pytest

from benchmarks import busy


@pytest.mark.slow
def test_every_setting_is_measured_alone_and_beside_a_job(monkeypatch, capsys):
    monkeypatch.setattr(busy, "SETTINGS", {"as imported": {"GOMP_SPINCOUNT": "3000"}})
    busy.main(["--seconds", "0.5"])
    header, line = capsys.readouterr().out.splitlines()
    assert "beside a job" in header and line.startswith("as imported") and float(line.split()[-1]) > 0


def test_settings_of_the_caller_are_left_out(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = busy.environment({"OMP_WAIT_POLICY": "passive"})
    assert found["OMP_WAIT_POLICY"] == "passive" and "OMP_NUM_THREADS" not in found
