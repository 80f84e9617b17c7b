"""PyTorch modules that architectures of our own are built from; imported when a network is built."""
