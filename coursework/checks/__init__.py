"""The checks: a module per exercise."""
