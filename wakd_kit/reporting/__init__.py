"""Notebooks as functions: parameters checked against one description, executed by papermill, rendered as pages."""
