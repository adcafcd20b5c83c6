"""The device half: head, early exits, scheduler, session and agent."""
