"""How Sphinx makes the site of `make docs`: the pages of the repository, where it has them.

So a link is the same on a code host and in the site. Nothing is fetched from elsewhere, neither
when the site is built nor when it is read.
"""

from thriftpipe import __version__

project = "thriftpipe"
version = release = __version__
project_copyright = ""

extensions = ["myst_parser"]
# Relative to the repository, which is the source folder.
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "pipeline/README.md", "results/*.md", "results/**/*.md"]
exclude_patterns = ["site", ".*"]

myst_heading_anchors = 4
# Options begin with two dashes.
smartquotes = False
suppress_warnings = [
    # Pages of single measurements are reached by links.
    "toc.not_included",
    # A measured page may begin with a smaller heading.
    "myst.header",
    # Pygments draws no Mermaid; code hosts do.
    "misc.highlighting_failure",
]

html_theme = "furo"
html_title = "thriftpipe"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
