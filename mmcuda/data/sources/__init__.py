"""The sources of cohorts: each reads its own layout and yields the one table."""
