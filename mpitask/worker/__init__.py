"""What runs below a rank: the zygote that forks workers, and the loop that runs tasks."""
