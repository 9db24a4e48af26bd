"""Settings that hold for every test."""

from hypothesis import settings

# A shared two-core machine is slow at times: no deadline for one example, and the same examples every run.
settings.register_profile("graphmeta", deadline=None, derandomize=True)
settings.load_profile("graphmeta")
