"""Observation and action spaces: what they are made of and what a model may know of them."""
