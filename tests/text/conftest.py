"""Where the tests of this folder find chat_templates.py."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
