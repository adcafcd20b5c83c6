"""Time in the codec, the device's half: which frame the server holds, and what frames take when they are coded against it."""
