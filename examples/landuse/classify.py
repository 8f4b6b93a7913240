"""The classification as a program: python classify.py IMAGE CLASSES.npy."""

import sys
from pathlib import Path

import numpy as np
from steps import classify, read_image

np.save(sys.argv[2], classify(read_image(Path(sys.argv[1]))))
