"""Real time: links between real processes, by relay, TUN or tc."""
