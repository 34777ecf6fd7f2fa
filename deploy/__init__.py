"""Afterwrite."""
