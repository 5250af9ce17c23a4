"""Tells twistd about smtpplus."""

from twisted.application.service import ServiceMaker

smtpplus = ServiceMaker("smtpplus", "smtpplus.tap", "A mail submission relay with priorities.", "smtpplus")
