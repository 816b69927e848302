"""Config groups and the experiment of the study; `hydra.searchpath` in conf/train.yaml."""
