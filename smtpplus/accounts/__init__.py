"""Floor 2, who may submit: users, their passwords, and the senders each of them may use."""
