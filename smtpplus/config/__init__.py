"""The settings: a TOML file becomes one frozen `Configuration`, or one sentence for each thing that is wrong with it.

`settings` holds the options with their types and defaults, `values` reads what a single option may say ("5m", "50 MiB",
"25, 1025-5000"), `places` knows on which line a key stands, `loading` puts them together. A configuration is whole or it is
not there: `load` raises `ConfigurationError` with every fault found, and nothing is started on half of a file.
"""

from smtpplus.config.loading import ConfigurationError, load, locate
from smtpplus.config.settings import (
    DNS,
    HTTP,
    TLS,
    Alerts,
    Configuration,
    Delivery,
    Limits,
    Listen,
    Log,
    Priority,
    Queue,
    Route,
    Senders,
    Submission,
    database_url,
)
from smtpplus.config.values import Endpoint, Network, PortRange

__all__ = [
    "DNS",
    "HTTP",
    "TLS",
    "Alerts",
    "Configuration",
    "ConfigurationError",
    "Delivery",
    "Endpoint",
    "Limits",
    "Listen",
    "Log",
    "Network",
    "PortRange",
    "Priority",
    "Queue",
    "Route",
    "Senders",
    "Submission",
    "database_url",
    "load",
    "locate",
]
