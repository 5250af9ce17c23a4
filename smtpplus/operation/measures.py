"""The pages that machines look at: `/metrics` for Prometheus, `/readyz` for who sends traffic here. `/healthz` is in http."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from smtpplus.observation.metrics import Measures
from smtpplus.operation.http import Answer, Asked, Page, plain

OPENMETRICS = "text/plain; version=0.0.4; charset=utf-8"


class Readiness:
    """Whether mail should be sent here: said by the composition root."""

    def __init__(self) -> None:
        self.why_not = "it is starting"

    def page(self) -> Page:
        """`/readyz`: 200 from the moment the queue is lined up until the stop begins, else 503 with the reason."""
        return Page(lambda _: plain(503, f"not ready: {self.why_not}") if self.why_not else plain(200, "ready"), counted=False)


def metrics(measures: Measures) -> Page:
    """`/metrics`, in the text format of Prometheus."""

    def answer(_: Asked) -> Deferred[Answer]:
        return measures.read().addCallback(lambda text: Answer(200, text, OPENMETRICS))

    return Page(answer)
