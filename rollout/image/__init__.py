"""Container images of a Bento and of its model, built and pushed."""
