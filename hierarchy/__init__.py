"""Deciding: policies that learn inside the world model."""
