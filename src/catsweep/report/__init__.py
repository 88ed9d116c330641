"""Reports of studies: report.html, and report.md with pictures."""
