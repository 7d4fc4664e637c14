"""What several tests of the loss run over."""

# positives, denominator: every member of the family
VARIANTS = [
    ("outside", "all"),
    ("inside", "all"),
    ("outside", "negatives"),
    ("inside", "negatives"),
    ("outside", "one_positive"),
]
