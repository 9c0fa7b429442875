"""From bundle to cluster: offline scoring and serving a built Bento. Works on the base install."""
