"""``python -m monai_landmark``."""

from monai_landmark.apps.cli import main

raise SystemExit(main())
