"""How Sphinx makes the site: `sphinx-build -W docs build/site`."""

from moeplan import __version__

project = "moeplan"
author = "The moeplan developers"
release = __version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "alabaster"
html_theme_options = {
    "description": "From a budget and a memory limit to an exact Mixture-of-Experts model",
    "fixed_sidebar": True,
    "page_width": "1180px",
}
html_show_sourcelink = False
suppress_warnings = ["misc.highlighting_failure"]
