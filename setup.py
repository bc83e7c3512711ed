"""What lies beside the package in a checkout and inside it in a wheel: the notebooks and the shipped studies."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = {"notebooks": "*.ipynb", "notebooks/lessons": "*.ipynb", "reports": "*.yaml"}


class WithNotebooksAndStudies(build_py):
    """Copies them into what becomes the wheel; an editable install finds them where they are."""

    def run(self):
        super().run()
        for folder, files in ({} if self.editable_mode else SHIPPED).items():
            place = Path(self.build_lib, "wakd_kit", folder)
            self.mkpath(str(place))
            for file in sorted(Path(folder).glob(files)):
                self.copy_file(str(file), str(place))


setup(cmdclass={"build_py": WithNotebooksAndStudies})
