"""What several tests of the loss run over."""

# positives, denominator: every member of the family
VARIANTS = [
    ("out", "all"),
    ("in", "all"),
    ("out", "negatives"),
    ("in", "negatives"),
    ("out", "sincere"),
]
