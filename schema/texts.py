"""Texts of notices to users."""
