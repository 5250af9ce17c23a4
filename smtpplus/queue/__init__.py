"""Floor 2, what is kept and in which order it goes: spool, scheduler, preemption, bounces."""
