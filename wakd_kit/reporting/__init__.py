"""From a notebook to a page: a notebook is a function, and its executed copy is read without Jupyter.

    p    = parameters(notebook)               one frozen dataclass: names, types, bounds, defaults
    copy = execute(notebook, out, p)          there only if every cell ran
    page = render(copy)                       self-contained HTML: figures with alt text, tables, no code, no network

parameters.py   what each shipped notebook accepts, and the check
execute.py      papermill, a kernel of this interpreter, and what is kept of one that failed
warm.py         a process that has imported everything, and forks jobs and kernels
render.py       figures, tables and sentences in a notebook; notebooks as pages
pages.py        the pages of a study that no notebook makes: per unseen domain, in print, over all studies
templates/      the page's skeleton and style
"""
