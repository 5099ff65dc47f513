"""What makes images: remote providers and this machine, behind one contract."""
