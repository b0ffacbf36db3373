"""Makes ``python -m nas.cli`` the same as ``nas``."""

import sys

from nas.cli import main

if __name__ == "__main__":
    sys.exit(main())
