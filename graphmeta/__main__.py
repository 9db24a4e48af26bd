"""``python -m graphmeta``: the command line."""

import sys

from graphmeta.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
