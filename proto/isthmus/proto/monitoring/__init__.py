"""How both halves are watched: the port that Prometheus and probes ask, names as labels, whether a half is alive and ready."""
