"""Move a window over a recorded run: in JupyterLab, or on one page without a kernel.

Board(run).look_up(coefficients) -> accuracy per domain          what is known of any average
scene(board) + pick(board, coefficients) -> plain values         what the view draws, in a widget or in a page
"""
