"""Images: ResNets as chains, data sets in their published layouts, augmentation, segmentation."""
