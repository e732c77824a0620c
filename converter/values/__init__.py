"""Numbers out of files, a block of rows at a time. numpy; loaded only where numbers are looked at."""
