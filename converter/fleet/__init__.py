"""Many adapters on Ray: judged, converted, if asked for proven and pushed, and a table of what came of each."""
