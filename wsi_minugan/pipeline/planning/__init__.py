"""What a plan is made of, and the file that it is kept in."""
