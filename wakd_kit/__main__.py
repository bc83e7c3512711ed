"""``python -m wakd_kit`` is ``wakd``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
