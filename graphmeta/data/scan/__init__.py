"""Logs beyond memory: read, validated, cut and sharded by DuckDB, see :class:`~graphmeta.data.scan.log.ScannedLog`."""
