"""Texts as rows: tokenized files and augmentation."""
