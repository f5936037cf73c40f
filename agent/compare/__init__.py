"""Curricula compared, from the folders of their runs alone."""
