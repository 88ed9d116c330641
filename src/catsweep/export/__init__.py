"""Taking the winner home: choosing it and writing it in portable formats."""
