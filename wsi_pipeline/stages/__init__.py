"""What the commands do: each stage reads files, writes files, and resumes alone."""
