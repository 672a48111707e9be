# The machine has restarted; nobody has logged in.
for _ in $(seq 300); do
	[ ! -S /run/user/1001/docker.sock ] || ! user docker version >/dev/null 2>&1 || break
	sleep 1
done
row running web user docker ps --format '{{.Names}}'
row published4 'inside from 10.77.0.2' patiently peer fixture get 10.77.0.1:8080
