"""What files say: bytes and JSON to data. Lenient: nothing is concluded, and what is wrong is kept for the rules."""
