"""What a configuration may say and seldom means: sentences, each naming its key. Nothing here makes it unusable."""

from __future__ import annotations

import os
from collections.abc import Iterator

from smtpplus.config.settings import Configuration


def doubts(configuration: Configuration) -> Iterator[str]:
    """A sentence, without a full stop, for each thing that is probably not meant."""
    queue = configuration.queue
    if queue.warn_after > queue.lifetime:
        yield "queue.warn_after is longer than queue.lifetime, so that no sender is ever told of a delay; make it shorter"
    seen: set[str] = set()
    for route in configuration.route:
        if "*" in seen:
            yield f'route.destination "{route.destination}" stands after "*", which takes all mail, and is never used; put it before'
        elif route.destination in seen:
            yield f'route.destination "{route.destination}" stands there twice, and the first is used alone; take one out'
        seen.add(route.destination)
    yield from _log(configuration)


def _log(configuration: Configuration) -> Iterator[str]:
    """Whether the mail log could be written by who asks; what is not there yet is made at the start."""
    if configuration.log.mail in ("", "-"):
        return
    path = os.path.join(configuration.state_directory, configuration.log.mail)
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        yield f"log.mail: {path} is a directory; name a file"
    elif os.path.exists(path):
        if not os.access(path, os.W_OK):
            yield f"log.mail: {path} cannot be written by who runs this; let the daemon's user write it, or name another file"
    elif not os.path.isdir(directory):
        if directory != str(configuration.state_directory):  # which is made at the start
            yield f"log.mail: there is no directory {directory}; make it, or name another file"
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield f"log.mail: nothing can be made in {directory} by who runs this; let the daemon's user write there, or name another file"
