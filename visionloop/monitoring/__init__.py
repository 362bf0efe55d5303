"""The health of the loop: flags with evidence, drift, and the report that shows both."""
