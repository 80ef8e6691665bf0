"""How paths are given to what opens files: as text, or as a `pathlib.Path`.

For annotations only. The way to the first cached answer keeps paths as text, because importing `pathlib` is a
twentieth of a start.
"""

import os
from typing import TypeAlias

StrPath: TypeAlias = str | os.PathLike[str]
