"""Floor 2, the way out: routing, the SMTP client and local delivery. Knows neither queue nor accounts."""
