"""Scheduler of requests: the bounded queue, its priorities, and how batches are formed."""
