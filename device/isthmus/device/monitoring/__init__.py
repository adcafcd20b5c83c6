"""What an agent tells of itself: counters for Prometheus, whether it answers, and traces of single frames."""
