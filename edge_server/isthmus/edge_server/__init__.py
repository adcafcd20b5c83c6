"""The server half: deadline-aware batching of tails behind one gRPC stream per device."""
