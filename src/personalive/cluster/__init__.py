"""Work on many devices and machines, by Ray: the optional extra ``cluster``, which nothing else imports."""
