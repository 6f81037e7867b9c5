"""What computing needs of the machine: noise, processes, threads, and its end."""
