"""`python -m wsi_pipeline.cli`, for clusters where the script is not on the path."""

from wsi_pipeline.cli import main

main()
