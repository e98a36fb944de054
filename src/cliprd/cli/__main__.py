"""`python -m cliprd.cli`."""

import sys

from cliprd.cli.main import main

sys.exit(main())
