"""Steps of graph encoders as fused operations, forward and backward, and their plain equals."""
