"""Between detections: boxes carried from picture to picture, their classes voted along the way."""
