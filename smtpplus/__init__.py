"""smtpplus: the mail submission relay that keeps its order and explains itself."""
