//! Situations of networks of containers that have addresses of the namespace's network.

use serde_json::{Value, json};

use super::Severity::{Advisory, Class};
use super::host::Host;
use super::{Case, all, case};

const DAEMON_JSON: &str = "home/.config/docker/daemon.json";
const STATE: &str = "home/.local/share/docker/swarm/docker-state.json";
const FLAGS: &str = "DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS";
const NETWORKS: &str = "/networks";
const INFO: &str = "/info";

/// An element of `GET /networks`.
fn network(name: &str, driver: &str, subnets: &[&str]) -> Value {
    let config: Vec<Value> = subnets.iter().map(|subnet| json!({ "Subnet": subnet })).collect();
    json!({ "Name": name, "Driver": driver, "IPAM": { "Driver": "default", "Config": config } })
}

/// A daemon with this network besides those that it always has.
fn runs_with(h: &mut Host, network_of_user: &Value) {
    let none = json!({ "Name": "none", "Driver": "null", "IPAM": { "Config": null } });
    let list = json!([none, network("bridge", "bridge", &["172.17.0.0/16"]), network_of_user]);
    h.runs(&[(NETWORKS, list)]);
}

/// The answer to `GET /info` of a manager.
fn manager(pool: &Value) -> Value {
    json!({ "Swarm": { "Cluster": { "ID": "abc", "DefaultAddrPool": pool, "SubnetSize": 24 } } })
}

#[test]
fn situations_of_networks_of_containers() {
    all(&networks_of_containers());
}

pub(super) fn networks_of_containers() -> Vec<Case> {
    let mut cases = networks();
    cases.extend(settings());
    cases.extend(pools());
    cases
}

fn networks() -> Vec<Case> {
    let code = "docker-network-overlap";
    vec![
        case(
            "a bridge network has the namespace's addresses",
            Class,
            code,
            "add --cidr=10.41.0.0/24 to DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS",
            |h| runs_with(h, &network("clash", "bridge", &["10.0.2.0/24"])),
        ),
        case(
            "an overlay network has the namespace's addresses",
            Class,
            code,
            "remove the network, and create it again with another --subnet",
            |h| runs_with(h, &network("back", "overlay", &["10.0.2.0/24"])),
        ),
        case(
            "a bridge network includes the namespace's addresses",
            Class,
            code,
            "=192.168.240.0/24",
            |h| runs_with(h, &network("wide", "bridge", &["10.0.0.0/8"])),
        ),
        case(
            "a bridge network has the gateway's address and other addresses in the namespace's network",
            Class,
            code,
            "--cidr",
            |h| runs_with(h, &network("part", "bridge", &["10.0.2.0/27"])),
        ),
        case(
            "a bridge network has unused addresses of the namespace's network",
            Class,
            "",
            "",
            |h| runs_with(h, &network("part", "bridge", &["10.0.2.128/25"])),
        ),
        case("no Docker network overlaps", Class, "", "", |h| {
            runs_with(h, &network("good", "bridge", &["10.0.3.0/24", "fd00::/64"]));
        }),
        case(
            "the namespace has IPv6, and a Docker network has its IPv6 addresses",
            Class,
            code,
            "",
            |h| {
                h.set(FLAGS, "--ipv6");
                runs_with(h, &network("six", "bridge", &["10.0.3.0/24", "fd00::/64"]));
            },
        ),
        case("the network has the addresses of another --cidr", Class, code, "--cidr=10.41", |h| {
            h.set(FLAGS, "--cidr=10.99.0.0/24");
            runs_with(h, &network("clash", "bridge", &["10.99.0.0/24"]));
        }),
        case("--cidr and the network have different addresses", Class, "", "", |h| {
            h.set(FLAGS, "--cidr=10.99.0.0/24");
            runs_with(h, &network("good", "bridge", &["10.0.2.0/24"]));
        }),
        case("lxc-user-nic and the network have different addresses", Class, "", "", |h| {
            h.set("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "lxc-user-nic");
            h.write("etc/lxc/lxc-usernet", "jo veth lxcbr0 1\n");
            runs_with(h, &network("good", "bridge", &["10.0.2.0/24"]));
        }),
        case("the daemon is not running, so its networks are unknown", Class, "", "", |h| {
            let list = json!([network("clash", "bridge", &["10.0.2.0/24"])]);
            h.prober.docker.insert(NETWORKS, list);
        }),
        case("the daemon does not answer with a list of networks", Class, "", "", |h| {
            h.runs(&[(NETWORKS, json!({ "message": "no" }))]);
        }),
    ]
}

fn settings() -> Vec<Case> {
    let code = "docker-network-overlap";
    vec![
        case(
            "daemon.json gives Docker's bridge the namespace's addresses",
            Class,
            code,
            "\"bip\" to",
            |h| {
                h.write(DAEMON_JSON, "{\"bip\": \"10.0.2.1/24\"}");
            },
        ),
        case(
            "the running daemon uses a \"fixed-cidr\" that overlaps the namespace's network",
            Class,
            code,
            "\"fixed-cidr\" to other addresses",
            |h| {
                h.write(DAEMON_JSON, "{\"fixed-cidr\": \"10.0.2.0/24\"}");
                let bridge = network("bridge", "bridge", &["10.0.2.0/24"]);
                h.runs(&[(NETWORKS, json!([bridge]))]);
            },
        ),
        case(
            "Docker's bridge keeps the addresses of an earlier setting",
            Class,
            code,
            "set \"bip\" to other addresses, such as",
            |h| {
                let bridge = network("bridge", "bridge", &["10.0.2.0/24"]);
                h.runs(&[(NETWORKS, json!([bridge]))]);
            },
        ),
        case("the settings have other addresses", Class, "", "", |h| {
            h.write(DAEMON_JSON, "{\"bip\": \"10.0.3.1/24\", \"fixed-cidr-v6\": \"fd00::/64\"}");
        }),
        case("default-address-pools includes the namespace's addresses", Class, "", "", |h| {
            h.write(
                DAEMON_JSON,
                "{\"default-address-pools\": [{\"base\": \"10.0.0.0/8\", \"size\": 24}]}",
            );
        }),
    ]
}

fn pools() -> Vec<Case> {
    let code = "swarm-pool";
    vec![
        case(
            "the daemon created a swarm with the default addresses",
            Advisory,
            code,
            "docker swarm init --default-addr-pool 10.20.0.0/16",
            |h| h.write(STATE, "{\"RemoteAddr\":\"\",\"DefaultAddressPool\":null}"),
        ),
        case("the daemon created a swarm with other addresses", Advisory, "", "", |h| {
            h.write(STATE, "{\"RemoteAddr\":\"\",\"DefaultAddressPool\":[\"10.20.0.0/16\"]}");
        }),
        case("the daemon joined a swarm, and is not running", Advisory, "", "", |h| {
            h.write(STATE, "{\"RemoteAddr\":\"192.0.2.9:2377\"}");
        }),
        case(
            "the daemon is a manager that joined a swarm with the default addresses",
            Advisory,
            code,
            "or, on each node, add --cidr=192.168.240.0/24 to",
            |h| {
                h.write(STATE, "{\"RemoteAddr\":\"192.0.2.9:2377\"}");
                h.runs(&[(INFO, manager(&json!(["10.0.0.0/8"])))]);
            },
        ),
        case(
            "the daemon is a manager that does not report the addresses of its swarm",
            Advisory,
            code,
            "with a --subnet outside 10.0.2.0/24",
            |h| {
                h.write(STATE, "{\"RemoteAddr\":\"192.0.2.9:2377\"}");
                h.runs(&[(INFO, manager(&Value::Null))]);
            },
        ),
        case("the daemon is a manager of a swarm with other addresses", Advisory, "", "", |h| {
            h.write(STATE, "{\"RemoteAddr\":\"\"}");
            h.runs(&[(INFO, manager(&json!(["10.20.0.0/16"])))]);
        }),
        case(
            "the daemon is a worker, which does not know the addresses of its swarm",
            Advisory,
            "",
            "",
            |h| {
                h.write(STATE, "{\"RemoteAddr\":\"192.0.2.9:2377\"}");
                h.runs(&[(INFO, json!({ "Swarm": { "Cluster": null } }))]);
            },
        ),
    ]
}
