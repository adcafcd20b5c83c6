"""Any .tflite file, cut in two without training."""
