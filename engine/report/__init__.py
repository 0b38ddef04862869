"""What the report is made of: findings in the run directory, figures, and numbers in words."""
