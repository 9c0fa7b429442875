"""Rows of a file, read one at a time.

Training, offline prediction and the bench all read through here, so a file is right or wrong in one way only. A message
names the file, the line, the problem and the remedy; it never holds a row's own text.
"""
