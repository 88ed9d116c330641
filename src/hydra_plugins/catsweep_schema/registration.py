"""Registers the schemas of `conf/` at each start of Hydra, which imports all modules of its plugins. Light."""

import steady.propose.schema
from catsweep import schema

schema.register()
steady.propose.schema.register(schema)
