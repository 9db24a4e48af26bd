"""Synthetic logs with a known rule, and contract checks for your own encoder.

report = check_encoder(MyEncoder)      # MyEncoder(width) -> module with forward(x, batch)
assert report.ok, report
"""

from graphmeta.testing.encoder import check_encoder
from graphmeta.testing.fakes import Mixture, fake_log, fake_ratings
from graphmeta.testing.report import Check, CheckReport, check_log

__all__ = ["Check", "CheckReport", "Mixture", "check_encoder", "check_log", "fake_log", "fake_ratings"]
