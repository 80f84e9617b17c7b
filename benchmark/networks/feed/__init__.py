"""From crops on disk to batches on the device: reading, augmentation, stored activations."""
