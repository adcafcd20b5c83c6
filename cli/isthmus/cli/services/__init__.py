"""systemd's units for both halves, and how they are put into a machine and taken out of it."""
