"""The face: `isthmus agent, serve, demo, relay, models, bench, doctor, certs`."""
