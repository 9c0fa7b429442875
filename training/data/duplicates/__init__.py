"""Duplicates, exact and near."""
