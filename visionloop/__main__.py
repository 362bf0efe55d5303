"""`python -m visionloop` is the command line."""

import sys

from visionloop.cli import main

sys.exit(main())
