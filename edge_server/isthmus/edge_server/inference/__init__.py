"""Existing clients: the Open Inference Protocol (KServe V2 over gRPC) in front of the same tails, batcher and deadlines."""
