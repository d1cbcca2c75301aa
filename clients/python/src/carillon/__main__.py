"""``python -m carillon``: the command ``carillon``, where it is not on the PATH."""

import sys

from carillon.cli import main

if __name__ == "__main__":
    sys.exit(main())
