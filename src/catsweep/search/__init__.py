"""The search: studies and what came of them."""
