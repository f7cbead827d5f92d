"""Images, video and sound in and out: any length, constant memory, exact times."""
