"""`job=pretrain`: the world model learns from stored episodes, before anything is played."""
