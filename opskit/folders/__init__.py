"""Folders of files: the second kind of source, whole."""
