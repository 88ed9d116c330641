"""What finds the cat in a photo: one file per way, behind the one interface of `protocol`."""
