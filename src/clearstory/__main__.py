"""`python -m clearstory`: the same as `clearstory`."""

import sys

from clearstory.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
