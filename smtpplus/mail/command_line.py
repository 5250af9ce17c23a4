"""Words of a command line that is shown to be copied into a shell. Pure.

Names and addresses come from strangers: an address may hold any sign that has a meaning for a shell. Whoever shows a command quotes
what it names.
"""

from __future__ import annotations

import shlex


def quoted(*words: object) -> str:
    """Arguments as a shell reads them back, also where one begins with a dash: the options of a command come before them."""
    whole = " ".join(shlex.quote(str(word)) for word in words)
    return f"-- {whole}" if any(str(word).startswith("-") for word in words) else whole
