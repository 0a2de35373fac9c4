"""`python -m minimind` is `minimind`; `torchrun -m minimind` uses it."""

import sys

from minimind.cli import main

sys.exit(main())
