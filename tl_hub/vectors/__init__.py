"""Vectors of texts by a frozen model: read, kept on the disk, and the heads and models that are made of them."""
