"""Labels: who is asked, and what was answered."""
