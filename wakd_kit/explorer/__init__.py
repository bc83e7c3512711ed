"""Move a window over a recorded run: in JupyterLab, or on one page without a kernel."""
