"""Print the shell command that the README gives under a marker: <!-- command: NAME -->."""

import re
import sys
import textwrap
from pathlib import Path

text, name = Path(sys.argv[1]).read_text(), sys.argv[2]
pattern = rf"<!-- command: {re.escape(name)} -->\s*```(?:bash|sh|shell)\n(.+?)\n\s*```"
found = re.search(pattern, text, re.S)
if found is None:
    sys.exit(f"{sys.argv[1]} has no command {name!r}")
print(textwrap.dedent(found.group(1)).strip())
