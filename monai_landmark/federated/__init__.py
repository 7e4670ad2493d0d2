"""Several hospitals train one network without a film leaving any of them: the bundle as an NVFlare job."""
