"""From files to tensors: sources, splits, packing, augmentation, loading."""
