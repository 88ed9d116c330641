"""The stages of a preparation, one file each, in the order of `pipeline` in conf/prepare.yaml."""
