"""Language-Table: blocks on a table that a robot pushes as instructed (arXiv 2210.06407).

Importing this package needs no simulator. The simulator is the user's own checkout of
github.com/google-research/language-table, which is on no package index; nothing of it is here.
"""

REGISTERS = ("benchmark", "questions")  # modules that register components; see vla.config.registry
