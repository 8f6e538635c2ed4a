"""What pyproject.toml can't say: a program that is compiled, and which Python starts the others."""

import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

from distutils.command.build_scripts import build_scripts  # isort: skip - setuptools has it

ROOT = Path(__file__).resolve().parent


class BuildPrograms(build_ext):
    """Compiles fimd/launch/entry.c, which is no module, by packaging/entry."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return where the program goes, from the top of the packages."""
        return fullname.replace(".", "/")

    def build_extension(self, extension: Extension) -> None:
        """Compile it. A checkout, which is installed in place, does without where that fails."""
        output = Path(self.get_ext_fullpath(extension.name)).resolve()
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run([ROOT / "packaging" / "entry", output], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            if not self.inplace:
                raise SystemExit(
                    f"fimd/launch/entry.c could not be compiled ({error}): its reason is above"
                ) from error
            output.unlink(missing_ok=True)
            self.warn(
                f"fimd/launch/entry.c could not be compiled ({error}): programs that images leave "
                "in the background will end with the one that left them"
            )


class BuildScripts(build_scripts):
    """Tells packaging/programs which interpreter pip runs with."""

    def copy_scripts(self) -> tuple[list[str], list[str]]:
        """Copy them, and fill it in."""
        made, updated = super().copy_scripts()
        python = getattr(sys, "_base_executable", sys.executable)
        for script in map(Path, made):
            script.write_text(script.read_text().replace("@PYTHON@", python))
        return made, updated


setup(
    cmdclass={"build_ext": BuildPrograms, "build_scripts": BuildScripts},
    ext_modules=[Extension("fimd.launch.entry", ["fimd/launch/entry.c"])],
)
