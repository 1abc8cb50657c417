"""The command line: `grid --help`. Each command parses, calls one public function, and prints."""
