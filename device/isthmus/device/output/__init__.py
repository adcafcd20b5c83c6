"""Where answers go: sinks, and the record that goes on from run to run."""
