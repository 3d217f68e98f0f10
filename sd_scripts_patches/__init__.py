"""One file for each upstream behaviour that the plugin changes.

A patch has `check()`, which changes nothing and raises Misfit where upstream is not what the patch relies on, and
`apply(...)`, which is handed what it installs and returns its undo. Nothing here imports lycoris_composite.
"""
