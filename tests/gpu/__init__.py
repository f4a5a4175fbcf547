"""What only a GPU can show; `python -m tests.gpu FOLDER` runs all of it on one device in under 6 minutes.

No part of continuous integration's required set: the tests are marked `gpu` and skipped without CUDA.
"""
