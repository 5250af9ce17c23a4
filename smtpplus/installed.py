"""The reactor of this process: ours, unless there is another already (`twistd --reactor`), and what right of way it gives.

As with twisted.internet.reactor, who imports it first decides; so it is imported before anything that wants a reactor.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.main import installReactor

from smtpplus.reactor import Reactor
from smtpplus.right_of_way import NoRightOfWay, RightOfWay


def _reactor() -> Any:
    if "twisted.internet.reactor" not in sys.modules:
        installReactor(Reactor())
    from twisted.internet import reactor

    return reactor


reactor = _reactor()
road: RightOfWay = reactor if isinstance(reactor, Reactor) else NoRightOfWay(reactor)
