"""How far labels are believed: agreement, consensus, annotators, likely errors, asking again."""
