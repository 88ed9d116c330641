"""Registers the schemas of `conf/` at each start of Hydra, which imports all modules of its plugins. Light."""

import steady.schema
from catsweep import schema

schema.register()
steady.schema.register(schema)
