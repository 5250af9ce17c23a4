"""Floor 3, the way in: listeners, the ESMTP session, and the moment of responsibility."""
