"""From features to pseudo-labels: whitening, k-means, balanced assignment."""
