"""Running a policy step by step."""
