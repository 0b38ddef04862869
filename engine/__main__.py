"""``python -m engine`` is ``poolscore``."""

import sys

from engine.cli import main

sys.exit(main())
