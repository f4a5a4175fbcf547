"""The modules of a package of moeplan, without importing any."""

from __future__ import annotations

import os
import pkgutil


def modules_in(package: str) -> dict[str, str]:
    """The modules of a package of moeplan ("plan/export/targets") by name, each with the first line of its docstring.

    None is imported, so that lists of what there is cost a command's help nothing.
    """
    folder = os.path.join(os.path.dirname(__file__), *package.split("/"))
    read = __spec__.loader.get_data  # type: ignore[union-attr]  # also from a zipped wheel
    texts = {found.name: read(os.path.join(folder, f"{found.name}.py")) for found in pkgutil.iter_modules([folder])}
    return {name: text.decode().partition("\n")[0].strip('"').removesuffix(".") for name, text in texts.items()}
