"""Serving of a saved model: an engine that batches concurrent requests, and an HTTP interface over it.

:mod:`graphmeta.serving.engine` needs nothing but the library; :mod:`graphmeta.serving.app` needs the extra ``serve``.
"""
