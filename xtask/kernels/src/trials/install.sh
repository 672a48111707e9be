# Docker, installed by the user. The image is made on the spot (tests/src/docker.rs); the variable MAKE_IMAGE is that
# script.
row install 'Installed docker.service successfully.' user dockerd-rootless-setuptool.sh install
row daemon . user docker version --format '{{.Server.Version}}'
row network "$NET" user rootlessctl --socket=/run/user/1001/dockerd-rootless/api.sock info --json
row image sha256: user sh -c "$MAKE_IMAGE"
row storage v user docker info --format '{{.Driver}}'
row tcp4 'peer from 10.77.0.1' contained --rm -- get 10.77.0.2:7000
row name 'peer from 10.77.0.1' contained --rm -- get peer.test:7000

# Servers that tell their clients their address. The first comes back with the machine.
row run '' contained -d --name web --restart always --stop-signal KILL -p 8080:80 -- http 0.0.0.0:80 inside
row published4 'inside from 10.77.0.2' patiently peer fixture get 10.77.0.1:8080
row published6 'inside from' patiently peer fixture get '[fd77::1]:8080'
row echo '' contained -d --name echo --stop-signal KILL -p 5000:5000/udp -- udp-echo 0.0.0.0:5000
row datagrams4 '10.77.0.2:' peer fixture udp-ask 10.77.0.1:5000 hello
user docker rm -f echo >/dev/null

folder=$(user mktemp -d)
printf 'FROM bb\nRUN echo built >/built\n' | user tee "$folder/Dockerfile" >/dev/null
row build '' user docker build -q -t built "$folder"
row built built user docker run --rm built cat /built
