"""Stage `train`: fine-tuning, its methods and the making of smaller models."""
