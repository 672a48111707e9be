# A ping from a container.
row ping4 ' 0% packet loss' user docker run --rm bb ping -c 1 -W 10 10.77.0.2
