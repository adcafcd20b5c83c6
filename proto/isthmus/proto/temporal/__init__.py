"""Time in the codec: a frame's symbols coded against those of a frame that both halves hold."""
