"""A Hub of our own on the loopback; `python -m tests.hub_server` starts it by hand."""

from .server import ACCOUNTS, FINE, READ, WRITE, Fault, File, HubServer, Repo

__all__ = ["ACCOUNTS", "FINE", "READ", "WRITE", "Fault", "File", "HubServer", "Repo"]
