"""`afterwrite load`: real content through the API."""

from deploy.load.command import app

__all__ = ["app"]
