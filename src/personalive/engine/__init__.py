"""The stream: networks, schedule and states; nothing of files, devices to choose or people."""
