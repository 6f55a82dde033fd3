"""Jobs as stages of DVC: `dvc.yaml`, pointers to inputs, and numbers that `dvc metrics` shows. DVC is not needed."""
