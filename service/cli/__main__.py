"""`python -m service.cli` is `klingel`."""

import sys

from service.cli import main

sys.exit(main())
