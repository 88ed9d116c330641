"""Registers the schemas of `conf/` at each start of Hydra, which imports all modules of its plugins.

It may import nothing heavy.
"""

import steady.propose.schema
from catsweep import schema

schema.register()
steady.propose.schema.register(schema)
