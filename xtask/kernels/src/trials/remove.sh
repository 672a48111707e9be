# The end: the daemon stops, and its data goes.
row stop '' user systemctl --user stop docker.service
row processes '' sh -c '! pgrep -u tester -l "rootless|docker|containerd"'
row purge '' user dockerd-rootless-setuptool.sh uninstall --purge
row gone '' [ ! -e /home/tester/.local/share/docker ]
