"""What follows from what files say: data to data. Opens no file itself, and judges nothing."""
